"""The limits on how many agents of a vendor account run, learned from refused calls and kept in memory only."""

import random
import time

from forkjoin.core.event import RateLimited
from forkjoin.core.model import CALLING, Agent
from forkjoin.scheduling import rate_limit_policy
from forkjoin.services import Services


async def record_rate_limit(services: Services, agent: Agent, refused: RateLimited) -> None:
    """Lower the limit of the agent's account after a refused call.

    The scheduler decides again at once if the new limit is stricter.
    """
    live = await services.store.agents.live()
    running = sum(other.account == agent.account and other.state in CALLING for other in live)
    before = services.rate_limits.get(agent.account)
    jitter = random.random()  # noqa: S311 - no secret
    known = services.rate_limits[agent.account] = rate_limit_policy.record_refusal(
        before, refused, time.time(), running, jitter
    )
    if before is None or known.max_running != before.max_running or known.closed_until > before.closed_until + 1:
        services.store.changes.announce()


def relax_rate_limits(services: Services, now: float, enough: int) -> None:
    """Raise the limits of accounts that had no refused call for a while.

    Args:
        now: The time in seconds since the epoch.
        enough: The maximum number of active agents. A limit of this many agents or more is forgotten.
    """
    for account, known in list(services.rate_limits.items()):
        grown = (
            rate_limit_policy.recover(known, now, enough) if known.changed_at <= now else None
        )  # a `changed_at` after `now` means that the clock was set back: then nobody knows how old the limit is
        if grown:
            services.rate_limits[account] = grown
        else:
            del services.rate_limits[account]
