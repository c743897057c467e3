"""Helpers that drive forkjoin in tests: git, the command line, leads, agents' programs and raw relays."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Self, TypeVar

import anyio
import pytest
from forkjoin.app import open_reconciler
from forkjoin.authentication import authenticate
from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from forkjoin.core.session import Hello, Session
from forkjoin.reconciler import Reconciler
from forkjoin.version import PROTOCOL, __version__
from forkjoin_tools.mcp_server import serve_mcp
from mcp import Client
from mcp.client._transport import TransportStreams
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCResponse, TextContent
from support.forkserver import forkserver, has_room

#: The relay's command as `forkjoin install` registers it: its Python is isolated from the working directory.
RELAY = (sys.executable, "-P", "-E", "-m", "forkjoin", "mcp")

#: Seconds until a test gives up waiting for an event. The limit is generous because no test measures time.
GIVE_UP_S = 120

T = TypeVar("T")


async def until(is_so: Callable[[], object]) -> None:
    """Poll the function until it returns a true value."""
    with anyio.fail_after(GIVE_UP_S):
        while not is_so():
            await anyio.sleep(0.01)


async def first_answer(ask: Callable[[], Awaitable[T]]) -> T:
    """Poll the async function until it returns a true value. Return that value."""
    with anyio.fail_after(GIVE_UP_S):
        while not (answer := await ask()):
            await anyio.sleep(0.01)
    return answer


def git(where: Path, *arguments: str, check: bool = True) -> str:
    """Run git in a folder. Return its output without the last newline."""
    done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.rstrip("\n")


def forkjoin(
    where: Path, *arguments: str, stdin: str = "", check: bool = True, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run forkjoin's command line in a folder, as a person does."""
    variables = {**os.environ, **(env or {})}
    done: subprocess.CompletedProcess[str]
    if has_room(variables):
        done = forkserver().run(*arguments, cwd=where, env=variables, stdin=stdin)
    else:
        done = subprocess.run(
            [sys.executable, "-m", "forkjoin", *arguments],
            cwd=where,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=variables,
        )
    assert done.returncode == 0 or not check, f"{done.stdout}\n{done.stderr}"
    return done


def kill_daemon(where: Path, home: Home, signum: int = signal.SIGKILL) -> None:
    """Kill the daemon that `forkjoin daemon status` reports in this folder.

    Return once it has ended.
    """
    pid = int(forkjoin(where, "daemon", "status").stdout.partition("pid ")[2].partition(",")[0])
    kill_daemon_of(home, pid, signum)


def kill_daemon_of(home: Home, pid: int, signum: int = signal.SIGKILL) -> None:
    """Send the home's daemon a signal. Return once the daemon has released its lock."""
    os.kill(pid, signum)
    while file_lock.is_held(home.daemon_lock):
        pass


@contextmanager
def running(where: Path, *arguments: str) -> Generator["subprocess.Popen[str]"]:
    """Start a command of forkjoin. Kill the command at the end if it still runs."""
    pipe = subprocess.PIPE
    argv = [sys.executable, "-m", "forkjoin", *arguments]
    with subprocess.Popen(argv, cwd=where, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class ToolRefusedError(Exception):
    """A tool's result was an error. The exception's message is the text of the result."""


class Lead:
    """An MCP client that calls forkjoin's tools."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Return the result's structured content, or its text if there is none.

        Raises:
            ToolRefusedError: The result is an error.
        """
        result = await self.client.call_tool(tool, arguments)
        text = "".join(part.text for part in result.content if isinstance(part, TextContent))
        if result.is_error:
            raise ToolRefusedError(text)
        return result.structured_content if result.structured_content is not None else text

    async def refusal(self, tool: str, **arguments: Any) -> str:
        """Assert that the call fails, and return the text of the error."""
        try:
            answer = await self.call(tool, **arguments)
        except ToolRefusedError as error:
            return str(error)
        raise AssertionError(f"{tool} was not refused: {answer}")

    async def spawn(self, *tasks: str, **defaults: Any) -> list[str]:
        """Spawn an agent for each task, and return the ids.

        `defaults` are fields of all their specs.
        """
        answer = await self.call("spawn_agents", agents=[{"task": task} for task in tasks], **defaults)
        return [agent["id"] for agent in answer["agents"]]

    async def listed(self, agent: str) -> Any:
        """Return the agent's entry in the result of `list_agents`."""
        (found,) = (await self.call("list_agents", ids=[agent]))["agents"]
        return found

    async def until(self, agent: str, **wanted: Any) -> Any:
        """Return the agent's entry in `list_agents` once its fields have these values."""

        async def look() -> Any:
            found = await self.listed(agent)
            return found if wanted.items() <= found.items() else None

        return await first_answer(look)

    async def last_event(self, agent: str, part: str) -> str:
        """Return the agent's `last_event` as soon as it contains this part."""

        async def look() -> str:
            last: str = (await self.listed(agent))["last_event"]
            return last if part in last else ""

        return await first_answer(look)

    async def run(self, *tasks: str, **defaults: Any) -> list[str]:
        """Spawn an agent for each task, wait until all have ended, and return the ids."""
        ids = await self.spawn(*tasks, **defaults)
        answer = await self.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S)
        assert not answer["timed_out"], answer
        return ids

    async def results(self, *ids: str) -> list[Any]:
        """Wait until the agents have ended, and return their results."""
        answer = await self.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S)
        assert not answer["timed_out"], answer
        return [await self.call("get_result", id=agent) for agent in ids]


def start_daemon(where: Path, variables: Mapping[str, str] = os.environ) -> None:
    """Start the home's daemon, unless it runs. A relay would take a second to do so."""
    if has_room(variables):
        forkserver().run(cwd=where, env=variables)


@asynccontextmanager
async def open_lead(where: Path, session: str = "session-1", **environment: str) -> AsyncGenerator[Lead]:
    """Connect a lead in a folder through a relay of its own, as Claude Code does."""
    variables = {**os.environ, "CLAUDE_PROJECT_DIR": str(where), "CLAUDE_CODE_SESSION_ID": session, **environment}
    start_daemon(where, variables)
    server = StdioServerParameters(command=RELAY[0], args=list(RELAY[1:]), env=variables, cwd=str(where))
    async with Client(stdio_client(server)) as client:
        yield Lead(client)


@asynccontextmanager
async def open_lead_in_memory(home: Home, where: Path, session: str = "session-1") -> AsyncGenerator[Lead]:
    """Connect a lead to a reconciler in this process, without relay, socket or daemon."""
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, where, session) as lead:
        yield lead


@asynccontextmanager
async def open_reconciler_in_memory(home: Home) -> AsyncGenerator[Reconciler]:
    """Run a reconciler in this process instead of a daemon."""
    lock = os.open(home.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # without the lock, an agent's shim would start a daemon
    try:
        async with open_reconciler(home) as reconciler, anyio.create_task_group() as tasks:
            tasks.start_soon(reconciler.run)
            yield reconciler
            tasks.cancel_scope.cancel()
    finally:
        os.close(lock)


def let_pass(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Move the clock that the scheduler reads forward by some seconds."""
    later = SimpleNamespace(time=lambda: time.time() + seconds, monotonic=lambda: time.monotonic() + seconds)
    monkeypatch.setattr("forkjoin.agents.apply_schedule.time", later)
    reconciler.store.changes.announce()


def limit(home: Home, **limits: float) -> None:
    """Add limits to the section [limits] of the home's config.toml."""
    lines = "".join(f"\n{name} = {value}" for name, value in limits.items())
    home.config_file.write_text(home.config_file.read_text().replace("[limits]", f"[limits]{lines}"))


@asynccontextmanager
async def lead_of(
    reconciler: Reconciler,
    where: Path,
    session: str = "session-1",
    kind: Literal["relay", "cli"] = "relay",
    *,
    token: str = "",
    **of_client: Any,
) -> AsyncGenerator[Lead]:
    """Connect a client to the tools of a reconciler in this process.

    The client is a lead with kind `relay`, and a person with kind `cli`. With an agent's token the client is that
    agent's program.
    """
    hello = make_hello(f"memory-{session}-{kind}", kind=kind, cwd=str(where), session_id=session, token=token)
    opened = Session(hello)
    if token:
        await authenticate(reconciler.services, opened)
    async with Client(_in_memory(reconciler, opened), **of_client) as client:
        yield Lead(client)


@asynccontextmanager
async def program_of(
    reconciler: Reconciler, agent: str, *, kind: Literal["relay", "cli"] = "relay", attempt: str | None = None
) -> AsyncGenerator[Lead]:
    """Connect an agent's program to the tools of a reconciler in this process.

    With kind `relay` the client is the agent's relay, with kind `cli` a command that the agent's program runs. If an
    attempt's handle is given, the client's process belongs to that attempt.
    """
    hello = make_hello(f"memory-{agent}-{kind}", kind=kind, token="its token")
    session = Session(hello, agent=await reconciler.store.agents.get(int(agent.removeprefix("a"))), attempt=attempt)
    async with Client(_in_memory(reconciler, session)) as client:
        yield Lead(client)


def make_hello(
    relay: str, *, kind: Literal["relay", "cli"] = "relay", cwd: str = "/", session_id: str = "", token: str = ""
) -> Hello:
    """Return the first message of a connection.

    Its environment is the one of this process.
    """
    return Hello(
        protocol=PROTOCOL,
        version=__version__,
        kind=kind,
        relay=relay,
        cwd=cwd,
        session_id=session_id,
        environment=dict(os.environ),
        token=token,
    )


@asynccontextmanager
async def _in_memory(reconciler: Reconciler, session: Session) -> AsyncGenerator[TransportStreams]:
    """Connect a client to the tools in this process.

    After each reply the callbacks that `session.written` holds for it are called.
    """
    to_server, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, replies = anyio.create_memory_object_stream[SessionMessage](0)
    to_client, from_server = anyio.create_memory_object_stream[SessionMessage | Exception](0)

    async def pass_on() -> None:
        async with replies, to_client:
            async for sent in replies:
                await to_client.send(sent)
                if isinstance(sent.message, JSONRPCResponse):
                    for act in session.written.pop(sent.message.id, []):
                        await act()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pass_on)
        tasks.start_soon(serve_mcp, reconciler, session, incoming, outgoing)
        async with from_server, to_server:
            yield from_server, to_server
        tasks.cancel_scope.cancel()


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class RawRelay:
    """A relay process that the test writes to and reads from directly."""

    def __init__(self, where: Path, argv: Sequence[str] = RELAY, *, own_group: bool = False, **variables: str) -> None:
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=where,
            env={**os.environ, **variables},
            start_new_session=own_group,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            self.process.kill()

    def end(self) -> None:
        """Close the relay's stdin, and wait for the relay to exit."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(GIVE_UP_S)
        self.process.stdout.close()

    def send(self, *messages: Any) -> None:
        assert self.process.stdin
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def call(self, number: int, tool: str, **arguments: Any) -> Any:
        self.send(tool_call(number, tool, **arguments))
        return self.answer()


def tool_call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    parameters = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": parameters}
