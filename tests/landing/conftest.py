"""A lead straight at the tools, which is quicker than through relay and daemon; and where landers are forked from."""

from collections.abc import AsyncIterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
from forkjoin.loop import Loop
from forkjoin.paths import Home
from harness import Lead, lead_of, open_loop_in_memory
from landings import PROCESSES


@pytest.fixture(scope="session", autouse=True)
def processes() -> None:
    """Start what processes are forked from before a test has a home: it would be taken for one of its own."""
    PROCESSES.set_forkserver_preload(["forkjoin.loop", "forkjoin.agent.restore", "anyio._backends._asyncio"])
    forkserver.ensure_running()


@pytest.fixture
async def near_loop(home: Home) -> AsyncIterator[Loop]:
    async with open_loop_in_memory(home) as found:
        yield found


@pytest.fixture
async def near_lead(repository: Path, near_loop: Loop) -> AsyncIterator[Lead]:
    async with lead_of(near_loop, repository) as found:
        yield found
