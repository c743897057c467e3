"""With more connections than file descriptors the daemon stays up and admits clients that send a hello."""

import json
import resource
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from forkjoin.core.paths import SOCKET, Home
from forkjoin.core.session import Session
from forkjoin.transport import daemon_connection, socket_server
from support.harness import forkjoin, until

FILES = 64


def test_more_connections_than_there_are_descriptors_do_not_end_the_daemon(home: Home, repository: Path) -> None:
    limited = subprocess.run(
        [*daemon_connection.daemon_command()[:-2], "daemon", "start"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
        cwd=repository,
        check=False,
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 0, limited.stderr
    with ExitStack() as crowd:
        for _ in range(2 * FILES):
            connection = daemon_connection.try_connect(home)
            assert connection
            crowd.enter_context(connection)
        assert "is running" in forkjoin(repository, "daemon", "status").stdout
    assert home.log.read_text().count("the daemon is up") == 1


HELLO = {"protocol": 1, "version": "0", "kind": "relay", "relay": "one of many", "cwd": "/"}
CALL = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode())"


async def test_connections_of_one_process_are_admitted_one_at_a_time_and_delay_no_other_process(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.make()
    monkeypatch.chdir(home.state)  # the socket is bound by a relative path
    owner_pids: list[int] = []
    go, hello = anyio.Event(), json.dumps(HELLO) + "\n"

    async def find_owner(pid: int) -> str | None:
        owner_pids.append(pid)
        await go.wait()
        return None

    async def welcome(_: Session) -> None:
        pass

    async def serve(*_: object) -> None:
        await anyio.sleep_forever()

    async with socket_server.bind(home) as listener, anyio.create_task_group() as tasks:
        door = socket_server.SocketServer(serve, welcome, find_owner)
        tasks.start_soon(door.serve, listener, tasks)
        with ExitStack() as crowd:
            many = [crowd.enter_context(found) for _ in range(20) if (found := daemon_connection.try_connect(home))]
            for connection in many:
                connection.sendall(hello.encode())
            await until(lambda: door.connected == len(many) == 20 and owner_pids)
            person = await anyio.open_process([sys.executable, "-c", f"{CALL}; s.recv(1)", SOCKET, hello])
            await until(lambda: person.pid in owner_pids)
            assert len(owner_pids) == 2
            go.set()
            await until(lambda: len(owner_pids) == 21)
            assert await person.wait() == 0
        tasks.cancel_scope.cancel()
