"""The command line's MCP client repeats an unanswered call with the next daemon."""

import threading
from pathlib import Path
from typing import Any

from forkjoin.cli.mcp_client import Client
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from support.fakes.daemon import FakeConnection, FakeDaemon
from support.harness import GIVE_UP_S


def _begin(connection: FakeConnection) -> None:
    assert connection.read()["method"] == "initialize"
    connection.say({"jsonrpc": "2.0", "id": 0, "result": {}})
    assert connection.read()["method"] == "notifications/initialized"


def test_a_call_without_an_answer_is_repeated_with_its_request_id(home: Home, repository: Path) -> None:
    fake = FakeDaemon(home)
    answers: list[Any] = []

    def call() -> None:
        with Client(str(repository)) as client:
            answers.append(client.call("spawn_agent", task="x"))

    calling = threading.Thread(target=call)
    calling.start()
    with fake.connection() as first:
        _begin(first)
        request = first.read()
        first.say_half({"jsonrpc": "2.0", "id": request["id"], "result": {}})
    with fake.connection() as second:
        _begin(second)
        assert second.read() == request
        assert second.hello["relay"] == first.hello["relay"]
        result: dict[str, Any] = {"content": [], "structuredContent": {"id": "a1"}}
        second.say({"jsonrpc": "2.0", "id": request["id"], "result": result})
        calling.join(GIVE_UP_S)
    fake.close()
    assert answers == [{"id": "a1"}]


def test_a_daemon_that_keeps_ending_is_reported(home: Home, repository: Path) -> None:
    fake = FakeDaemon(home)
    said: list[str] = []

    def call() -> None:
        try:
            Client(str(repository))
        except daemon_connection.DaemonError as error:
            said.append(str(error))

    calling = threading.Thread(target=call)
    calling.start()
    for _ in range(5):
        with fake.connection() as connection:
            connection.read()
    calling.join(GIVE_UP_S)
    fake.close()
    assert said == ["the daemon keeps ending. See forkjoin daemon logs"]
