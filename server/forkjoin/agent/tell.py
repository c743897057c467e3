"""Telling agents something after their task: recorded first, then given to the program that runs, in order.

One whose program takes turns has it at once, and answers it within the turn or after it, even if its input is closed
then. All others have it when their turn is over, as the next turn of the same conversation.
"""

from typing import Literal

from forkjoin.adapter.all import ADAPTERS
from forkjoin.agent.prepare import handle_of
from forkjoin.event import Noted
from forkjoin.model import Agent, State
from forkjoin.rooms import Rooms
from forkjoin.session import Caller

#: Characters of a message that the log shows.
_WORDS = 200

#: Whether a message has reached the program, or is the beginning of another turn.
Delivery = Literal["now", "next_turn"]


async def tell(rooms: Rooms, caller: Caller, agent: Agent, text: str) -> tuple[Agent, Delivery]:
    """Record a message to an agent, and give it at once where that can be; the agent as it is then."""
    before = await rooms.store.answered(caller.call)
    number = before["mail"] if before else await rooms.store.tell(agent, text, caller.call)
    await deliver(rooms, await rooms.store.agent(agent.number))
    sent = await rooms.store.was_sent(number)
    return await rooms.store.agent(agent.number), "now" if sent else "next_turn"


async def deliver(rooms: Rooms, agent: Agent) -> None:
    """Give an agent's running program what waits for it, if it can take it. Doing so twice is harmless.

    Raises:
        OSError: There is no room for it; it waits on.
    """
    if agent.state is State.RUNNING and takes_turns(rooms, agent):
        adapter = ADAPTERS[rooms.settings.program(agent.spec.agent).kind]
        for message in await rooms.store.waiting_mail(agent):
            turn = adapter.turn(message.text, f"{agent.conversation} {message.number}")
            if not await rooms.executor.send(handle_of(agent), turn):
                return
            if await rooms.store.set_sent(message, agent):
                await rooms.store.note(agent, [(Noted(f"told: {message.text[:_WORDS]}"), -1)])


def takes_turns(rooms: Rooms, agent: Agent) -> bool:
    """Whether an agent's program can be told something while it runs."""
    return ADAPTERS[rooms.settings.program(agent.spec.agent).kind].TAKES_TURNS
