"""forkjoin's tools over HTTP on loopback, for test programs that support no other transport."""

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import uvicorn
from forkjoin.core.session import Session
from forkjoin.reconciler import Reconciler
from forkjoin_tools.mcp_server import make_server
from support.harness import make_hello, until


@asynccontextmanager
async def serve_http(reconciler: Reconciler, where: Path) -> AsyncGenerator[str]:
    """Serve a lead's tools over HTTP while the context is open.

    Yields:
        The URL of the MCP endpoint.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        session = Session(make_hello("http", cwd=str(where)))  # all connections share this session
        app = make_server(reconciler, session).streamable_http_app()
        web = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.serve, [listener])
            await until(lambda: web.started)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            finally:
                web.should_exit = True
