"""An agent can't block the daemon or fill its memory with connections and incomplete lines."""

import json
import socket
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from forkjoin.core.paths import SOCKET, Home
from forkjoin.transport import daemon_connection
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, forkjoin, open_lead, tool_call, until

MEGABYTE = 1024 * 1024


class Talker:
    """A connection with an agent's token."""

    def __init__(self, home: Home, repository: Path, token: str, kind: str = "relay") -> None:
        found = daemon_connection.try_connect(home)
        assert found
        self.socket = found
        self.socket.settimeout(GIVE_UP_S)
        self.file = self.socket.makefile("rb")
        greeting = {"protocol": 1, "version": "0", "kind": kind, "relay": "talker", "cwd": str(repository)}
        self.answer = self.ask({**greeting, "token": token})

    def send(self, *messages: Any) -> None:
        self.socket.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def ask(self, *messages: Any) -> Any:
        self.send(*messages)
        return json.loads(self.file.readline())

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
async def token(repository: Path, home: Home, tmp_path: Path) -> str:
    """Return the token of an agent that has ended."""
    async with open_lead(repository) as lead:
        await lead.run(f'printf %s "$FORKJOIN_TOKEN" > {tmp_path}/token')
    return (tmp_path / "token").read_text()


@contextmanager
def talkers(home: Home, repository: Path, token: str, count: int) -> Generator[list[Talker]]:
    with ExitStack() as opened:
        found = [Talker(home, repository, token) for _ in range(count)]
        for talker in found:
            opened.callback(talker.close)
        yield found


def is_let_in(home: Home, repository: Path, token: str) -> bool:
    with talkers(home, repository, token, 1) as (talker,):
        return bool(talker.answer["ok"])


def daemon_of(home: Home) -> psutil.Process:
    connection = daemon_connection.try_connect(home)
    assert connection
    with connection:
        return psutil.Process(daemon_connection.peer_of(connection)[0])


async def test_an_agents_connections_are_limited_while_a_person_can_still_connect(
    token: str, home: Home, repository: Path
) -> None:
    with talkers(home, repository, token, 40) as found:
        refused = [connection.answer for connection in found if not connection.answer["ok"]]
        assert len(found) - len(refused) == 32
        assert "has 32 connections, which is the limit. Close some of them" in refused[0]["error"]
        assert "a1" in forkjoin(repository, "ps").stdout
        found[0].close()
        await until(lambda: is_let_in(home, repository, token))


async def test_incomplete_lines_of_an_agent_are_limited_together(token: str, home: Home, repository: Path) -> None:
    daemon = daemon_of(home)
    before = daemon.memory_info().rss
    with talkers(home, repository, token, 32) as found:
        for talker in found:
            talker.socket.sendall(b"x" * (8 * MEGABYTE))  # the daemon reads all of it, and drops most
        assert daemon.memory_info().rss - before < 80 * MEGABYTE
        answer = found[0].ask("")
        assert "a message may have at most 4 MB" in answer["error"]["message"]
        assert found[0].ask(INITIALIZE)["id"] == 0
    await until(lambda: daemon.memory_info().rss - before < 30 * MEGABYTE)


async def test_an_endless_hello_is_limited_while_it_is_read(home: Home, repository: Path) -> None:
    forkjoin(repository, "daemon", "start")
    daemon = daemon_of(home)
    before = daemon.memory_info().rss
    with ExitStack() as opened:
        for _ in range(8):
            connection = daemon_connection.try_connect(home)
            assert connection
            opened.enter_context(connection)
            connection.sendall(b"x" * (16 * MEGABYTE))
        assert daemon.memory_info().rss - before < 40 * MEGABYTE


async def test_the_oldest_connection_without_a_hello_is_closed_for_new_ones(home: Home, repository: Path) -> None:
    forkjoin(repository, "daemon", "start")
    daemon = daemon_of(home)
    before = daemon.num_fds()
    with ExitStack() as opened:
        silent = [opened.enter_context(found) for _ in range(200) if (found := daemon_connection.try_connect(home))]
        assert "is running" in forkjoin(repository, "daemon", "status").stdout
        assert daemon.num_fds() - before <= 70
        silent[0].settimeout(GIVE_UP_S)
        assert silent[0].recv(1) == b""
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            silent[-1].recv(1)


async def test_the_unanswered_requests_of_an_agents_connection_are_limited(
    home: Home, repository: Path, tmp_path: Path
) -> None:
    async with open_lead(repository) as lead:
        task = (
            f'printf %s "$FORKJOIN_TOKEN" > {tmp_path}/token.new; mv {tmp_path}/token.new {tmp_path}/token; sleep 1000'
        )
        (agent,) = await lead.spawn(task)
        await until((tmp_path / "token").exists)
        with closing(Talker(home, repository, (tmp_path / "token").read_text(), "cli")) as talker:
            talker.ask(INITIALIZE)
            waits = [tool_call(number, "wait_agents", ids=[agent]) for number in range(1, 34)]
            refused = [talker.ask(INITIALIZED, *waits)]
            talker.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
            talker.send(waits[-1])  # within the limit again
            refused.append(talker.ask(tool_call(34, "wait_agents", ids=[agent])))
            assert [answer["id"] for answer in refused] == [33, 34]
            assert "32 requests have no answer yet" in refused[0]["error"]["message"]
        await lead.call("stop_agents", ids=[agent])


def test_a_persons_connection_waits_for_few_others(
    home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.state)  # a socket's path must be short
    forkjoin(repository, "daemon", "start")
    daemon = daemon_of(home)
    with ExitStack() as opened:
        opened.callback(daemon.resume)
        daemon.suspend()
        with pytest.raises(BlockingIOError):
            for _ in range(100):
                connection = opened.enter_context(socket.socket(socket.AF_UNIX))
                connection.setblocking(False)
                connection.connect(SOCKET)
