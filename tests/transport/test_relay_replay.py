"""When the daemon ends during a conversation, the client still gets each answer once."""

import json
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from forkjoin.transport.relay import Conversation
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from support.fakes.daemon import FakeDaemon
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, RELAY, RawRelay, tool_call, until

PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}


def _kill(home: Home) -> None:
    """Kill the daemon. The relay then starts another."""
    connection = daemon_connection.connect(home)
    os.kill(daemon_connection.peer_of(connection)[0], signal.SIGKILL)
    with connection, suppress(ConnectionResetError):
        while connection.recv(65536):
            pass


def test_a_daemon_killed_between_any_two_lines_is_not_noticed(repository: Path, home: Home) -> None:
    with RawRelay(repository) as relay:
        _kill(home)
        relay.send(INITIALIZE)
        assert relay.answer()["id"] == 0
        _kill(home)
        relay.send(INITIALIZED)
        _kill(home)
        relay.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        _kill(home)
        assert relay.answer()["id"] == 1
        _kill(home)
        spawned = relay.call(2, "spawn_agent", task="echo once", name="once")
        assert spawned["result"]["structuredContent"]["id"] == "a1"
        _kill(home)
        relay.send(tool_call(3, "wait_agents", ids=["once"], timeout_s=GIVE_UP_S))
        _kill(home)
        assert relay.answer()["result"]["structuredContent"]["finished"][0]["summary"] == "once"
        _kill(home)
        listed = relay.call(4, "list_agents")["result"]["structuredContent"]
        assert [agent["name"] for agent in listed["agents"]] == ["once"]


def _result(number: int, **result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "result": result}


def test_a_daemon_that_dies_five_times_is_followed_by_another_each_time(repository: Path, fake: FakeDaemon) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED, tool_call(1, "slow"))
        for life in range(5):
            with fake.connection() as connection:
                heard = connection.read_all(3)
                assert [message.get("id") for message in heard] == [0, None, 1]
                connection.say(_result(0, life=life))
                connection.say_half(_result(1, life=life))
        with fake.connection() as connection:
            connection.read_all(3)
            connection.say(_result(0, life="last"), _result(1, life="last"))
            assert [relay.answer()["result"]["life"] for _ in range(2)] == [0, "last"]
            relay.end()


def test_answered_and_cancelled_requests_are_not_repeated_and_notifications_are_sent_once(
    repository: Path, fake: FakeDaemon
) -> None:
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
    with RawRelay(repository) as relay:
        relay.send(
            INITIALIZE, INITIALIZED, tool_call(1, "done"), tool_call(2, "cancelled"), tool_call(3, "open"), cancel
        )
        with fake.connection() as connection:
            assert len(connection.read_all(6)) == 6
            connection.say(PROGRESS, _result(0), _result(1), PROGRESS)
            said = [relay.answer() for _ in range(4)]
        with fake.connection() as connection:
            again = connection.read_all(3)
            assert [(message["method"], message.get("id")) for message in again] == [
                ("initialize", 0),
                ("notifications/initialized", None),
                ("tools/call", 3),
            ]
            connection.say(_result(0), PROGRESS, _result(3))
            said += [relay.answer() for _ in range(2)]
            relay.end()
    assert [message.get("id", message.get("method")) for message in said] == [
        "notifications/progress",
        0,
        1,
        "notifications/progress",
        "notifications/progress",
        3,
    ]


def test_a_relay_survives_a_daemon_that_ends_while_it_writes(repository: Path, fake: FakeDaemon) -> None:
    with RawRelay(repository) as relay, fake.connection() as going:
        going.hear_no_more()  # a write to this socket raises SIGPIPE
        relay.send(INITIALIZE)
        with fake.connection() as following:
            assert following.read()["id"] == 0
            following.say(_result(0))
            assert relay.answer()["id"] == 0
            relay.end()


def test_a_daemon_that_never_answers_is_reported(repository: Path, fake: FakeDaemon) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE)

        def go_away() -> None:
            for _ in range(5):
                with fake.connection():
                    pass

        going = threading.Thread(target=go_away)
        going.start()
        assert "keeps ending" in relay.answer()["error"]["message"]
        going.join(GIVE_UP_S)
        assert relay.process.wait(GIVE_UP_S) == 1


async def test_a_half_written_answer_is_completed_even_if_no_daemon_starts_again(repository: Path, home: Home) -> None:
    fake = FakeDaemon(home)
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED, tool_call(1, "long"))
        with fake.connection() as connection:
            connection.read_all(3)
            home.config_file.write_text("[limits]\nmax_runing = 3\n")
            connection.say(_result(0), _result(1, text="x" * 200_000))  # more than the pipe to the client can hold
            fake.close()
        await until(lambda: home.log.exists() and "max_runing" in home.log.read_text())
        assert relay.process.stdin
        relay.process.stdin.close()
        assert [relay.answer()["id"] for _ in range(2)] == [0, 1]


def test_a_client_that_does_not_read_delays_no_other_and_loses_nothing(repository: Path, home: Home) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with RawRelay(repository) as mute, RawRelay(repository) as other:
        mute.send(INITIALIZE, INITIALIZED, *({**ping, "id": number} for number in range(1, 301)))
        other.send(INITIALIZE, INITIALIZED)
        assert other.answer()["id"] == 0
        assert other.call(1, "get_status")["id"] == 1
        assert sorted(mute.answer()["id"] for _ in range(301)) == list(range(301))


def test_a_form_is_withdrawn_when_its_daemon_ends_and_its_answer_is_dropped(repository: Path, fake: FakeDaemon) -> None:
    form = {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {"message": "May it?"}}
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        with fake.connection() as connection:
            connection.read_all(2)
            connection.say(_result(0), form)
            assert [relay.answer()["id"] for _ in range(2)] == [0, 1]
        with fake.connection() as connection:
            taken_back = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            assert relay.answer() == taken_back
            relay.send(_result(1, action="accept"), tool_call(2, "slow"))
            heard = connection.read_all(3)
            connection.say(_result(0), _result(2), form)
            assert [relay.answer()["id"] for _ in range(2)] == [2, 1]
            relay.send(_result(1, action="decline"))
            assert [message.get("id") for message in (*heard, connection.read())] == [0, None, 2, 1]
            relay.end()


@pytest.mark.parametrize("number", [None, True, 1.5, [1], {}])
def test_a_request_with_an_invalid_id_does_not_keep_the_relay_running(
    repository: Path, home: Home, number: Any
) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED, {"jsonrpc": "2.0", "id": number, "method": "tools/list"})
        assert relay.answer()["id"] == 0
    assert relay.process.returncode == 0


def test_the_relay_refuses_and_drops_a_line_that_is_too_long(repository: Path, home: Home) -> None:
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        relay.answer()
        relay.send(b"x" * 40_000_000)
        assert "at most 32 MB" in relay.answer()["error"]["message"]
        assert relay.call(1, "get_status")["id"] == 1


async def test_a_stateless_client_does_not_notice_a_new_daemon(repository: Path, home: Home) -> None:
    variables = {**os.environ, "CLAUDE_PROJECT_DIR": str(repository)}
    server = StdioServerParameters(command=RELAY[0], args=list(RELAY[1:]), env=variables, cwd=str(repository))
    async with Client(stdio_client(server), mode="2026-07-28") as client:
        await client.call_tool("spawn_agent", {"task": "echo once", "name": "once"})
        _kill(home)
        waited = await client.call_tool("wait_agents", {"ids": ["once"], "timeout_s": GIVE_UP_S})
        assert waited.structured_content
        assert waited.structured_content["finished"][0]["summary"] == "once"
        _kill(home)
        listed = await client.call_tool("list_agents", {})
        assert listed.structured_content
        assert len(listed.structured_content["agents"]) == 1


def test_the_first_request_of_a_stateless_client_is_repeated(repository: Path, fake: FakeDaemon) -> None:
    discover: dict[str, Any] = {"jsonrpc": "2.0", "id": "d", "method": "server/discover", "params": {}}
    with RawRelay(repository) as relay:
        relay.send(discover)
        for _ in range(2):
            with fake.connection() as connection:
                assert connection.read() == discover
        with fake.connection() as connection:
            assert connection.read() == discover
            connection.say({"jsonrpc": "2.0", "id": "d", "result": {}})
            assert relay.answer()["id"] == "d"
            relay.end()


def test_subscriptions_are_repeated_but_do_not_keep_the_relay_of_a_gone_client(
    repository: Path, fake: FakeDaemon
) -> None:
    listen: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {}}
    with RawRelay(repository) as relay:
        relay.send(listen)
        for _ in range(2):
            with fake.connection() as connection:
                assert connection.read() == listen
        with fake.connection():
            relay.end()
    assert relay.process.returncode == 0


def test_a_client_with_only_subscriptions_gets_no_error_when_daemons_keep_ending(
    repository: Path, fake: FakeDaemon
) -> None:
    listen: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {}}
    acknowledged: dict[str, Any] = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged"}
    with RawRelay(repository) as relay:
        relay.send(listen)
        for _ in range(6):
            with fake.connection() as connection:
                assert connection.read() == listen
                connection.say(acknowledged)
                assert relay.answer() == acknowledged
        with fake.connection() as connection:
            connection.say(_result(1))
            assert relay.answer() == _result(1)
            relay.end()


def test_an_id_of_the_handshake_may_be_used_again() -> None:
    memory = Conversation()
    initialize, call = json.dumps(INITIALIZE).encode(), json.dumps(tool_call(0, "x")).encode()
    memory.note_request(initialize)
    assert not memory.note_answer(b'{"jsonrpc":"2.0","id":0,"result":{}}')
    memory.note_request(call)
    assert memory.repeat() == initialize + b"\n" + call + b"\n"
    assert memory.note_answer(
        b'{"jsonrpc":"2.0","id":0,"result":{}}'
    )  # the reply to the handshake, which the client already has
    assert not memory.note_answer(b'{"jsonrpc":"2.0","id":0,"result":{"of": "the call"}}')
