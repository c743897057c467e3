"""Our tools over HTTP on loopback, for tests with programs that speak to a server in no other way."""

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import uvicorn
from forkjoin.loop import Loop
from forkjoin.session import Hello, Session
from forkjoin.version import PROTOCOL, __version__
from forkjoin_tools.server import make_server
from harness import until


@asynccontextmanager
async def serve_http(loop: Loop, where: Path) -> AsyncGenerator[str]:
    """The address at which a lead's tools are served, for as long as this lasts."""
    hello = Hello(
        protocol=PROTOCOL, version=__version__, kind="relay", relay="http", cwd=str(where), environment=dict(os.environ)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = make_server(loop, Session(hello)).streamable_http_app()  # every connection's session is this one
        web = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(web.serve, [listener])
            await until(lambda: web.started)
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
            finally:
                web.should_exit = True
