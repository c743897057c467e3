"""A lead straight at the tools, which is quicker than through relay and daemon."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.loop import Loop
from forkjoin.paths import Home
from harness import Lead, lead_of, open_loop_in_memory


@pytest.fixture
async def near_loop(home: Home) -> AsyncIterator[Loop]:
    async with open_loop_in_memory(home) as found:
        yield found


@pytest.fixture
async def near_lead(repository: Path, near_loop: Loop) -> AsyncIterator[Lead]:
    async with lead_of(near_loop, repository) as found:
        yield found
