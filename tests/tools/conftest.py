"""An agent at work, whose program asks."""

from collections.abc import AsyncIterator

import pytest
from forkjoin.reconciler import Loop
from support.harness import Lead, program_of


@pytest.fixture
async def program(near_loop: Loop, near_lead: Lead) -> AsyncIterator[Lead]:
    """The program of a1, which runs."""
    (agent,) = await near_lead.spawn("sleep 1000")
    await near_lead.until(agent, state="running")
    async with program_of(near_loop, agent) as found:
        yield found
