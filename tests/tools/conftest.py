"""A running agent whose program calls its own tools."""

from collections.abc import AsyncIterator

import pytest
from forkjoin.reconciler import Reconciler
from support.harness import Lead, program_of


@pytest.fixture
async def program(in_process_reconciler: Reconciler, near_lead: Lead) -> AsyncIterator[Lead]:
    """Yield the MCP client of the running program of a1."""
    (agent,) = await near_lead.spawn("sleep 1000")
    await near_lead.until(agent, state="running")
    async with program_of(in_process_reconciler, agent) as found:
        yield found
