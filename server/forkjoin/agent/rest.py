"""Between two attempts: one has ended in trouble that will pass, so the agent rests, and goes on in another."""

import random
import time

from forkjoin.adapter.contract import Conclusion, Trouble
from forkjoin.decision import governor, retry
from forkjoin.event import RateLimited
from forkjoin.model import Agent
from forkjoin.record.rows import Rest
from forkjoin.rooms import Rooms


async def find_rest(rooms: Rooms, agent: Agent, concluded: Conclusion) -> Rest | None:
    """How the agent is to rest after an attempt that came to this; none where that was its last."""
    match concluded.trouble:
        case Trouble.LASTING:
            return None
        case Trouble.PASSING:
            most = rooms.settings.limits.retries if agent.spec.retries is None else agent.spec.retries
            pause = retry.pause(agent.retried, most, _draw())
            return None if pause is None else Rest(time.time() + pause, counts=True)
        case Trouble.REFUSED:
            return Rest(await note_refusal(rooms, agent, RateLimited(concluded.error or "refused")), counts=False)


async def note_refusal(rooms: Rooms, agent: Agent, refused: RateLimited) -> float:
    """Note that the vendor took no more of the agent's account; until when nothing of it starts, or goes on."""
    name = agent.account or f"a{agent.number}"  # older records have none
    live = await rooms.store.live()
    running = sum(one.account == agent.account and one.state in governor.CALLING for one in live)
    refusal = governor.Refusal(time.time(), refused.text, refused.wait_s, refused.until, _draw())
    known = rooms.accounts[name] = governor.refuse(rooms.accounts.get(name), refusal, running)
    rooms.store.changes.announce()
    return known.closed_until


def _draw() -> float:
    return random.random()  # noqa: S311 - no secret


def words_to_go_on(agent: Agent) -> str:
    """What an attempt is told that goes on where another was cut off."""
    return (
        f"Your program was cut off in the midst of your work ({agent.last_event}), and runs again now. Your "
        "worktree is as you left it. Look where you stand and go on; where all is done, end with your report."
    )
