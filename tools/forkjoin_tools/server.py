"""The MCP server: every tool, and what a model that has never seen forkjoin must know to use it well."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from forkjoin.loop import Loop
from forkjoin.session import Session
from forkjoin.version import __version__
from mcp.server import MCPServer
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage

from forkjoin_tools import end, join, look, read, spawn
from forkjoin_tools.strict import StrictTool

INSTRUCTIONS = """\
forkjoin runs many coding agents at once, each in its own git worktree and branch, and merges what they did.

Use it when work splits into parts that do not need each other: features, fixes, tests, migrations, reviews.
1. Split the work so that no two agents edit the same files. Each agent sees only its task and the repository at base:
   write goal, files, constraints and acceptance into the task. Give `verify` (a test command) where there is one.
2. spawn_agents with all of them in one call; it answers at once. More than fit are queued.
3. Go on with other work, or wait_agents (it blocks until they have ended). Do not poll list_agents.
4. get_result for details; read_diff before you trust; read_log when one failed.
5. merge_worktree with all ids that succeeded, and the full test command as `verify`: branches that conflict or break
   it are left out and named. For a conflict, spawn a new agent with that part of the task: it starts from what merged.
6. remove_worktrees when merged.
Agents go on when this session ends; list_agents finds them again. Ids (a1) are short and never reused; a name stands
wherever an id may."""

AGENT_INSTRUCTIONS = (
    "You are an agent of forkjoin. It has no tools for you: do your task, and commit it on your branch."
)

_session: ContextVar[Session] = ContextVar("session")


class Tools:
    """Serves MCP to sessions: the lead's tools, or an agent's."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.lead = self._make(INSTRUCTIONS, lead_tools())
        self.agent = self._make(AGENT_INSTRUCTIONS, [])

    def _make(self, instructions: str, tools: list[StrictTool]) -> MCPServer[Any]:
        @asynccontextmanager
        async def lifespan(_: MCPServer[Any]) -> AsyncGenerator[tuple[Loop, Session]]:
            yield self._loop, _session.get()

        return MCPServer(
            "forkjoin",
            instructions=instructions,
            version=__version__,
            tools=[*tools],
            lifespan=lifespan,
            subscriptions=False,
            log_level="WARNING",
        )

    async def serve(
        self, session: Session, incoming: ReadStream[SessionMessage | Exception], outgoing: WriteStream[SessionMessage]
    ) -> None:
        """Serve one session until `incoming` is at its end."""
        _session.set(session)
        server = self.agent if session.is_agent else self.lead
        # MCPServer runs over stdio or HTTP by itself; over any pair of streams only its low-level server does.
        low = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
        await low.run(incoming, outgoing, low.create_initialization_options())


def lead_tools() -> list[StrictTool]:
    """The lead's tools, those that start the work first."""
    groups: tuple[Callable[[], list[StrictTool]], ...] = (spawn.tools, look.tools, read.tools, join.tools, end.tools)
    return [tool for group in groups for tool in group()]
