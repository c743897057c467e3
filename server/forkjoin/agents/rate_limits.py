"""What a vendor refuses is noted of the account, until it takes more. A daemon that takes over knows of none."""

import random
import time

from forkjoin.core.event import RateLimited
from forkjoin.core.model import CALLING, Agent
from forkjoin.scheduling import rate_limit_policy
from forkjoin.services import Services


async def note_refusal(services: Services, agent: Agent, refused: RateLimited) -> None:
    """Note that the vendor took no more of the agent's account."""
    live = await services.store.agents.live()
    running = sum(one.account == agent.account and one.state in CALLING for one in live)
    before = services.rate_limits.get(agent.account)
    jitter = random.random()  # noqa: S311 - no secret
    known = services.rate_limits[agent.account] = rate_limit_policy.record_refusal(
        before, refused, time.time(), running, jitter
    )
    if before is None or known.max_running != before.max_running or known.closed_until > before.closed_until + 1:
        services.store.changes.announce()


def let_grow(services: Services, now: float, enough: int) -> None:
    """Let more run of each account that was not refused for a while; of one of which `enough` may, nothing is known."""
    for account, known in list(services.rate_limits.items()):
        grown = (
            rate_limit_policy.recover(known, now, enough) if known.changed_at <= now else None
        )  # else the clock was set back
        if grown:
            services.rate_limits[account] = grown
        else:
            del services.rate_limits[account]
