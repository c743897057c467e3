"""Between two attempts: one has ended in what passes, so the agent pauses, and goes on in another."""

import random
import time

from forkjoin.adapters.contract import Conclusion, Retry
from forkjoin.core.model import Agent, Pause
from forkjoin.scheduling.backoff import backoff_s
from forkjoin.scheduling.gates import PERSON_ATTACHED, PERSON_LEFT
from forkjoin.services import Services

_LONGEST_S = 300.0
#: Why one pauses that may spend no more; its gate says until when.
_SPENT = "what it may spend is spent; set_budget gives it more"
#: Characters of the error that a pause tells.
_WHY_LIMIT = 200


def rest_after(services: Services, agent: Agent, concluded: Conclusion) -> Pause | None:
    """How the agent pauses after an attempt that came to this; none where that was its last."""
    why = " ".join((concluded.error or "").split())[:_WHY_LIMIT]
    match concluded.retry:
        case Retry.NO:
            return None
        case Retry.WHEN_FUNDED if agent.money.reserved_usd:
            return Pause(_SPENT)
        case Retry.WHEN_TAKEN:  # the rate-limit policy's gate says when
            return Pause(why)
        case Retry.LATER | Retry.ANEW | Retry.WHEN_FUNDED:  # of money that was not given by us, nor is limited by us
            limits = services.settings.limits
            most = limits.retries if agent.spec.retries is None else agent.spec.retries
            jitter = random.random()  # noqa: S311 - no secret
            rest_s = backoff_s(agent.history.retried, limits.rest_s, _LONGEST_S, jitter)
            pause = Pause(why, not_before=time.time() + rest_s, counts=True, anew=concluded.retry is Retry.ANEW)
            return pause if agent.history.retried < most else None


#: What an agent is told after a person has been in its conversation.
AFTER_PERSON = (
    "A person may have gone on with your work meanwhile, in this conversation and in your worktree; that ended your "
    "program. Heed what they said, look where you stand and go on; where all is done, end with your report."
)


def words_to_go_on(agent: Agent) -> str:
    """What an attempt is told that goes on where another was cut off."""
    if agent.pause.why in (PERSON_ATTACHED, PERSON_LEFT):
        return AFTER_PERSON
    why = agent.pause.why.partition(";")[0]  # what follows is for its lead
    return (
        f"Your program was cut off in the midst of your work ({why}), and runs again now. Your "
        "worktree is as you left it. Look where you stand and go on; where all is done, end with your report."
    )
