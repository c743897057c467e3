"""Fuzzing of the daemon's socket and the relay: no input stops them, and each request with an id has one reply."""

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

#: The documented maximum length of a reply.
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
#: All tools except those that start work or wait for it.
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
    """A connection to the daemon after the handshake and MCP's initialization. A thread reads all replies."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.socket = daemon_connection.connect(home)
        self.socket.settimeout(GIVE_UP_S)
        assert daemon_connection.say_hello(self.socket, "relay", daemon_connection.new_relay_id(), str(folder))["ok"]
        self.socket.settimeout(None)
        self.lines = queue.Queue[bytes]()
        threading.Thread(
            target=self._listen, daemon=True
        ).start()  # the daemon stops reading from a client that does not read
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
        """Send a ping, and read until the replies to it and to all expected ids have come.

        Returns: all messages except the ping's reply.
        """
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


def test_each_request_has_one_reply_among_malformed_lines_and_the_daemons_memory_stays_bounded(
    wire: Wire, home: Home
) -> None:
    daemon = _daemon(home)
    memory: list[int] = []
    lines = Counter[str]()

    @fuzzed(150)
    @given(st.lists(st.one_of(WHOLE, WHOLE, MESSAGES, RAW), min_size=12, max_size=20))
    def attack(drawn: list[Any]) -> None:
        requests: list[int] = []
        for message in drawn:
            if not isinstance(message, bytes):
                message["id"] = wire.next_number()
                if message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str):
                    requests.append(message["id"])
            wire.send(message)
        replies = wire.answers(*requests)
        times = Counter(reply.get("id") for reply in replies if "method" not in reply)
        assert [times[number] for number in requests] == [1] * len(requests)
        assert max((count for number, count in times.items() if number is not None), default=1) == 1
        lines["sent"] += len(drawn)
        if lines["sent"] > 300:  # modules that load at first use are loaded by now
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


def test_each_malformed_hello_is_answered_in_one_line_and_the_daemon_keeps_running(
    home: Home, repository: Path
) -> None:
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


def test_the_relay_prints_only_json_rpc_messages_on_stdout(home: Home, repository: Path) -> None:
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


def test_a_repeated_id_and_repeated_cancellations_leave_the_connection_usable(wire: Wire) -> None:
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


def test_a_line_of_ten_megabytes_is_answered_and_the_daemon_keeps_running(wire: Wire, home: Home) -> None:
    daemon = _daemon(home)
    wire.send({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "x" * 10_000_000}})
    assert [one["id"] for one in wire.answers(5)] == [5]
    wire.send(b"y" * 10_000_000)
    assert wire.answers()[0]["error"]["code"] == -32700
    assert os.path.exists(f"/proc/{daemon}")


def test_a_message_that_is_both_request_and_response_is_answered_with_an_error(wire: Wire) -> None:
    wire.send({"jsonrpc": "2.0", "id": 5, "method": "ping", "params": [], "result": {}})
    assert [(one["id"], one["error"]["code"]) for one in wire.answers(5)] == [(5, -32600)]


def test_requests_with_invalid_ids_do_not_block_the_connection(wire: Wire) -> None:
    wire.send(*({"jsonrpc": "2.0", "id": number, "method": "ping"} for number in (None, True, 1.5, [1])))
    assert [one for one in wire.answers() if one["id"] is not None] == []
