"""Where landers are forked from."""

from multiprocessing import forkserver

import pytest
from landings import PROCESSES


@pytest.fixture(scope="session", autouse=True)
def processes() -> None:
    """Start what processes are forked from before a test has a home: it would be taken for one of its own."""
    PROCESSES.set_forkserver_preload(["forkjoin.loop", "forkjoin.agent.restore", "anyio._backends._asyncio"])
    forkserver.ensure_running()
