"""The pause after an attempt that could not finish the task, and the message that ends it."""

import random
import time

from forkjoin.adapters.contract import Conclusion, Retry
from forkjoin.core.model import Agent, Pause, PauseReason
from forkjoin.scheduling.backoff import backoff_s
from forkjoin.services import Services

#: The longest pause in seconds.
_LONGEST_S = 300.0
#: The reason of a pause until the budget is raised.
_SPENT = "its budget is spent; set_budget raises it"
#: The number of characters of an error that the reason of a pause includes.
_WHY_LIMIT = 200


def pause_after(services: Services, agent: Agent, concluded: Conclusion) -> Pause | None:
    """Return the pause after an attempt, or `None` if no other attempt follows."""
    why = " ".join((concluded.error or "").split())[:_WHY_LIMIT]
    match concluded.retry:
        case Retry.NO:
            return None
        case Retry.WHEN_FUNDED if agent.money.reserved_usd:
            return Pause(PauseReason.BUDGET, _SPENT)
        case Retry.WHEN_ACCEPTED:  # no `not_before`: the scheduler's rate-limit gate decides when the pause ends
            return Pause(PauseReason.RATE_LIMIT, why)
        case Retry.LATER | Retry.FROM_TASK | Retry.WHEN_FUNDED:
            # WHEN_FUNDED here: forkjoin reserved no money for this agent, so the budget that is spent is the vendor's.
            limits = services.settings.limits
            most = limits.retries if agent.spec.retries is None else agent.spec.retries
            jitter = random.random()  # noqa: S311 - no secret
            rest_s = backoff_s(agent.history.retried, limits.rest_s, _LONGEST_S, jitter)
            if agent.history.retried >= most:
                return None
            starts_over, until = concluded.retry is Retry.FROM_TASK, time.time() + rest_s
            return Pause(PauseReason.RETRY, why, not_before=until, counts=True, starts_over=starts_over)


#: The message to an agent after a person was attached to it.
AFTER_PERSON = (
    "A person may have continued your work meanwhile, in this conversation and in your worktree, which ended your "
    "program. Follow what they said, check the state of your work, and continue. If everything is done, end with your "
    "report."
)


def continuation_message(agent: Agent) -> str:
    """Return the message with which a paused agent's next attempt begins.

    It says why the program was interrupted.
    """
    if agent.pause.reason in (PauseReason.PERSON_ATTACHED, PauseReason.PERSON_LEFT):
        return AFTER_PERSON
    why = "its budget was used up" if agent.pause.reason is PauseReason.BUDGET else agent.pause.why
    return (
        f"Your program was interrupted during your work ({why}), and runs again now. Your worktree is unchanged. "
        "Check the state of your work, and continue. If everything is done, end with your report."
    )
