"""An agent that runs, and asks by its own tools, in a loop of this process."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from forkjoin.loop import Loop
from forkjoin.session import digest_of
from harness import Lead, lead_of

FOREVER = "sleep 1000"


async def spawn_running(lead: Lead, **more: object) -> str:
    """The id of an agent that runs until it is stopped."""
    (agent,) = await lead.spawn(FOREVER, **more)
    await lead.until(agent, state="running")
    return agent


@asynccontextmanager
async def program_of(loop: Loop, where: Path, agent: str) -> AsyncGenerator[Lead]:
    """What speaks to the agents' tools as this agent's program does."""
    await loop.store.add_token(int(agent[1:]), digest_of(f"the token of {agent}"))
    async with lead_of(loop, where, f"program of {agent}", token=f"the token of {agent}") as program:
        yield program
