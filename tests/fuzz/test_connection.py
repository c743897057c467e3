"""Whatever comes over the socket, the same daemon answers the next, and each request with an id has one reply."""

import contextlib
import json
import os
import queue
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from forkjoin_tools.mcp_server import TOOLS
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzzed
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, RawRelay

#: Longest reply, as documented.
LIMIT = 64 * 1024
GROWTH_KB = 16 * 1024

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["a1", "--force", "../../x", "\0", "\u202e", "x" * 5000, "main:f"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
)
#: Everything but spawning and merging, which would be work and no answer.
SAFE_TOOLS = sorted(set(TOOLS) - {"spawn_agent", "spawn_agents", "merge_worktree", "wait_agents"})
PARAMETERS = ["id", "ids", "limit", "offset", "state", "all", "cursor", "raw", "tail", "path", "no_such"]
ARGUMENTS = st.dictionaries(st.sampled_from(PARAMETERS), VALUES)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(st.sampled_from([*SAFE_TOOLS, "no_such", "x" * 100_000]), SCALARS),
        "arguments": st.one_of(ARGUMENTS, VALUES),
        "_meta": VALUES,
    },
)
LONG = "x" * 100_000
METHODS = ["tools/call", "tools/list", "ping", "resources/read", "prompts/get", "no/such", "server/discover", LONG]
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.one_of(st.just("2.0"), st.just("2.0"), st.just("2.0"), SCALARS),
        "method": st.one_of(st.just("tools/call"), st.sampled_from(METHODS), SCALARS),
        "params": st.one_of(CALLS, CALLS, VALUES),
        "result": VALUES,
        "error": VALUES,
    },
)
WHOLE = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": st.sampled_from(METHODS), "params": st.one_of(CALLS, VALUES)}
)
RAW = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"[]", b"42", b"\0", b'{"jsonrpc":"2.0","id":', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000]),
    VALUES.map(lambda value: json.dumps(value).encode()),
)


class Wire:
    """A connection to the daemon, past the handshake; it is opened again where the daemon has closed it."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.socket = daemon_connection.connect(home)
        self.socket.settimeout(GIVE_UP_S)
        assert daemon_connection.say_hello(self.socket, "relay", daemon_connection.new_relay_id(), str(folder))["ok"]
        self.socket.settimeout(None)
        self.lines = queue.Queue[bytes]()
        threading.Thread(target=self._listen, daemon=True).start()  # who does not read is not read from, either
        self.number = 0
        self.send(INITIALIZE, INITIALIZED)
        self.answers()

    def _listen(self) -> None:
        with self.socket.makefile("rb") as file, contextlib.suppress(OSError):
            while line := file.readline():
                self.lines.put(line)
        self.lines.put(b"")

    def send(self, *messages: Any) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.socket.sendall(line.replace(b"\n", b" ") + b"\n")

    def next_number(self) -> int:
        self.number += 1
        return 1000 + self.number

    def answers(self, *expected: int) -> list[Any]:
        """What is answered up to the reply to a last ping, and until all of these have had theirs."""
        ping = self.next_number()
        self.send({"jsonrpc": "2.0", "id": ping, "method": "ping"})
        found: list[Any] = []
        seen = False
        while not (seen and set(expected) <= {one["id"] for one in found if isinstance(one.get("id"), int)}):
            line = self.lines.get(timeout=GIVE_UP_S)
            assert line, "the daemon closed the connection"
            assert len(line) <= LIMIT
            message = json.loads(line)
            if message.get("id") == ping:
                assert "result" in message
                seen = True
            else:
                found.append(message)
        return found


@pytest.fixture
def wire(home: Home, repository: Path) -> Iterator[Wire]:
    found = Wire(home, repository)
    with found.socket:
        yield found
        found.socket.shutdown(socket.SHUT_RDWR)


def _daemon(home: Home) -> int:
    connection = daemon_connection.try_connect(home)
    assert connection
    with connection:
        return daemon_connection.peer_of(connection)[0]


def _memory_kb(pid: int) -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])


def test_each_request_gets_one_reply_whatever_else_comes_and_memory_stays(wire: Wire, home: Home) -> None:
    daemon = _daemon(home)
    memory: list[int] = []
    lines = Counter[str]()

    @fuzzed(150)
    @given(st.lists(st.one_of(WHOLE, WHOLE, MESSAGES, RAW), min_size=12, max_size=20))
    def attack(drawn: list[Any]) -> None:
        asked: list[int] = []
        for message in drawn:
            if not isinstance(message, bytes):
                message["id"] = wire.next_number()
                if message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str):
                    asked.append(message["id"])
            wire.send(message)
        replies = wire.answers(*asked)
        times = Counter(reply.get("id") for reply in replies if "method" not in reply)
        assert [times[number] for number in asked] == [1] * len(asked)
        assert max((count for number, count in times.items() if number is not None), default=1) == 1
        lines["sent"] += len(drawn)
        if lines["sent"] > 300:  # what is loaded at first use was
            memory.append(_memory_kb(daemon))

    attack()
    assert lines["sent"] >= 2000
    assert memory[-1] - memory[0] < GROWTH_KB, memory
    assert _daemon(home) == daemon


HELLO = {"protocol": 1, "version": "0.1.0", "kind": "cli", "relay": "x", "cwd": "/"}
HELLOS = st.one_of(
    RAW,
    st.fixed_dictionaries({}, optional={name: st.one_of(st.just(value), VALUES) for name, value in HELLO.items()}).map(
        lambda hello: json.dumps(hello).encode()
    ),
    st.dictionaries(st.sampled_from(["environment", "token", "session_id", "project_dir", "cwd"]), VALUES).map(
        lambda parts: json.dumps({**HELLO, **parts}).encode()
    ),
)


def test_each_hello_is_answered_in_one_line_and_the_daemon_stays(home: Home, repository: Path) -> None:
    with daemon_connection.connect(home):
        daemon = _daemon(home)

    @fuzzed(150)
    @given(HELLOS)
    def attack(line: bytes) -> None:
        connection = daemon_connection.try_connect(home)
        assert connection
        connection.settimeout(GIVE_UP_S)
        with connection, connection.makefile("rb") as file, contextlib.suppress(ConnectionError):
            connection.sendall(line.replace(b"\n", b" ") + b"\n")
            answer = json.loads(file.readline())
            assert isinstance(answer["ok"], bool)
            assert answer["ok"] or answer["error"]
            assert answer["pid"] == daemon
            connection.shutdown(socket.SHUT_WR)
            assert file.read() == b""

    attack()
    assert _daemon(home) == daemon


def test_the_relays_stdout_holds_messages_alone(home: Home, repository: Path) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        assert relay.answer()["id"] == 0

        @fuzzed(40)
        @given(st.lists(st.one_of(WHOLE, MESSAGES, RAW), max_size=12))
        def attack(drawn: list[Any]) -> None:
            number = 10_000 + attack.count  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
            for place, message in enumerate(drawn):
                if isinstance(message, dict):
                    message["id"] = f"{number}.{place}"
                    relay.send(message)
                else:
                    relay.send(message.replace(b"\n", b" "))
            relay.send({"jsonrpc": "2.0", "id": number, "method": "ping"})
            attack.count += 1  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
            while (answer := relay.answer()).get("id") != number:
                assert answer["jsonrpc"] == "2.0"
                assert "result" in answer or "error" in answer or "method" in answer

        attack.count = 0  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
        attack()


def test_a_repeated_id_and_a_cancelled_call_leave_the_connection_well(wire: Wire) -> None:
    call: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": "get_status", "arguments": {}},
    }
    wire.send(call)
    assert [one["id"] for one in wire.answers(7)] == [7]
    wire.send(call)
    assert [one["id"] for one in wire.answers(7)] == [7]
    wait = {"name": "wait_agents", "arguments": {"timeout_s": 600}}
    wire.send(
        {"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": wait},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 8}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 8}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "none"}},
    )
    assert len([one for one in wire.answers() if one.get("id") == 8]) <= 1


def test_ten_megabytes_in_one_line_are_answered_like_any_other(wire: Wire, home: Home) -> None:
    daemon = _daemon(home)
    wire.send({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "x" * 10_000_000}})
    assert [one["id"] for one in wire.answers(5)] == [5]
    wire.send(b"y" * 10_000_000)
    assert wire.answers()[0]["error"]["code"] == -32700
    assert os.path.exists(f"/proc/{daemon}")


def test_what_is_request_and_response_at_once_is_refused_like_a_request(wire: Wire) -> None:
    wire.send({"jsonrpc": "2.0", "id": 5, "method": "ping", "params": [], "result": {}})
    assert [(one["id"], one["error"]["code"]) for one in wire.answers(5)] == [(5, -32600)]


def test_a_request_without_an_id_that_can_be_answered_keeps_nobody(wire: Wire) -> None:
    wire.send(*({"jsonrpc": "2.0", "id": number, "method": "ping"} for number in (None, True, 1.5, [1])))
    assert [one for one in wire.answers() if one["id"] is not None] == []
