"""A daemon in the test's process: agents' programs and command lines reach it through the home's socket.

It starts in milliseconds, and the test can change its clock and its constants.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, chdir
from functools import partial
from pathlib import Path

import anyio
from forkjoin.authentication import authenticate
from forkjoin.core.error import CallerError
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from forkjoin.transport import socket_server
from forkjoin.transport.socket_server import FindOwner
from forkjoin_tools.mcp_server import serve_mcp
from support.harness import Lead, lead_of, open_reconciler_in_memory


@asynccontextmanager
async def open_daemon_in_process(home: Home) -> AsyncGenerator[Reconciler]:
    """Run a reconciler in this process that accepts connections as a daemon does."""
    async with open_reconciler_in_memory(home) as reconciler:

        async def find_owner(pid: int) -> str | None:
            """Return the attempt of a process, or `None` for a process of the test itself."""
            try:
                return await reconciler.services.executor.find_owner(pid)
            except CallerError:
                return None

        async with accept_connections(reconciler, home, find_owner):
            yield reconciler


@asynccontextmanager
async def open_lead_in_process(home: Home, where: Path, session: str = "session-1") -> AsyncGenerator[Lead]:
    """Connect a lead in a folder to a daemon in this process."""
    async with open_daemon_in_process(home) as reconciler, lead_of(reconciler, where, session) as lead:
        yield lead


@asynccontextmanager
async def accept_connections(reconciler: Reconciler, home: Home, find_owner: FindOwner) -> AsyncGenerator[None]:
    """Accept connections on the home's socket until the context is closed."""
    with chdir("."):  # `bind` changes the working directory
        async with socket_server.bind(home) as listener, anyio.create_task_group() as tasks:
            server = socket_server.SocketServer(
                partial(serve_mcp, reconciler), partial(authenticate, reconciler.services), find_owner
            )
            tasks.start_soon(server.serve, listener, tasks)
            yield
            tasks.cancel_scope.cancel()
