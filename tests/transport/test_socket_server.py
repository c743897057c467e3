"""The daemon's socket: invalid input, and who is admitted."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forkjoin.cli import daemon
from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from support.attempts import is_running
from support.harness import GIVE_UP_S, forkjoin, limit, until


class Peer:
    """A connection that sends arbitrary bytes."""

    def __init__(self, home: Home) -> None:
        self.socket = daemon_connection.connect(home)
        self.socket.settimeout(GIVE_UP_S)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def ask(self, line: bytes) -> Any:
        self.socket.sendall(line + b"\n")
        answer = self.file.readline()
        return json.loads(answer) if answer else None


@pytest.fixture
def peer(home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Yield a peer that has sent a hello and initialize."""
    monkeypatch.chdir(repository)
    with Peer(home) as found:
        daemon_connection.say_hello(found.socket, "cli", "peer")
        parameters = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        request = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": parameters}
        assert found.ask(json.dumps(request).encode())["id"] == 0
        found.socket.sendall(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        yield found


ODD_LINES = [
    (b"this is no JSON", -32700, None),
    (b'{"jsonrpc":"2.0","id":5,"meth', -32700, None),
    (b"\xff\xfe\x00", -32700, None),
    (b"[]", -32600, None),
    (b"42", -32600, None),
    (b'"text"', -32600, None),
    (b"{}", -32600, None),
    (b'{"jsonrpc":"2.0","id":5,"method":7}', -32600, 5),
    (b"[" * 100_000, -32700, None),
    (b'{"jsonrpc":"2.0","id":6,"method":"no/such"}', -32601, 6),
    (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}', -32602, 7),
]


@pytest.mark.parametrize(("line", "code", "number"), ODD_LINES, ids=lambda value: str(value)[:30])
def test_an_invalid_line_gets_an_error_and_the_next_request_is_answered(
    peer: Peer, line: bytes, code: int, number: int | None
) -> None:
    answer = peer.ask(line)
    assert (answer["error"]["code"], answer["id"]) == (code, number)
    assert peer.ask(b'{"jsonrpc":"2.0","id":9,"method":"ping"}') == {"jsonrpc": "2.0", "id": 9, "result": {}}


def test_a_line_of_40_megabytes_is_refused_and_the_next_request_answered(peer: Peer) -> None:
    answer = peer.ask(b"x" * 40_000_000)
    assert answer["error"]["code"] == -32600
    assert "at most 32 MB" in answer["error"]["message"]
    assert peer.ask(b'{"jsonrpc":"2.0","id":9,"method":"ping"}')["id"] == 9


def test_a_call_of_an_unknown_tool_gets_an_error_message(peer: Peer) -> None:
    request: dict[str, Any] = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "no_such"}}
    answer = peer.ask(json.dumps(request).encode())
    assert answer["result"]["isError"] is True
    assert "no_such" in answer["result"]["content"][0]["text"]


def test_a_call_before_initialize_is_refused(home: Home, repository: Path) -> None:
    with Peer(home) as found:
        daemon_connection.say_hello(found.socket, "cli", "peer")
        assert "error" in found.ask(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
    assert "the daemon is running" in forkjoin(repository, "daemon", "status").stdout


def test_a_client_that_disconnects_while_it_is_refused_causes_no_error(home: Home, repository: Path) -> None:
    with Peer(home) as found:
        assert daemon_connection.say_hello(found.socket, "relay", "peer", str(repository))["ok"]
        found.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                found.socket.sendall(b"no JSON\n" * 1000)  # until the daemon waits for the client to read
    forkjoin(repository, "daemon", "stop")
    assert "a connection failed" not in home.log.read_text()


BAD_HELLOS = [
    (b"no hello at all", "not JSON"),
    (b"[]", "the hello is invalid"),
    (b'{"protocol": 99, "version": "9", "kind": "cli", "relay": "x", "cwd": "/"}', "knows protocols up to 1, not 99"),
    (b'{"protocol": 1, "version": "9", "kind": "browser", "relay": "x", "cwd": "/"}', "kind"),
    (b'{"protocol": 1, "version": "9", "kind": "cli", "relay": "x", "cwd": "/", "environment": [1]}', "environment"),
    (b"x" * 1_200_000, "longer than 1 MB"),
]


@pytest.mark.parametrize(("line", "says"), BAD_HELLOS, ids=lambda value: str(value)[:30])
def test_an_invalid_hello_gets_an_error_message(home: Home, line: bytes, says: str) -> None:
    with Peer(home) as found:
        answer = found.ask(line)
        found.socket.shutdown(socket.SHUT_WR)
        assert answer["ok"] is False
        assert says in answer["error"]
    with Peer(home) as found:
        assert daemon_connection.say_hello(found.socket, "cli", "peer")["ok"] is True


def test_only_the_user_can_access_the_socket_folder_and_files(home: Home) -> None:
    with Peer(home):
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in home.state.iterdir() if path.name != "config.toml"
        }
    assert stat.S_IMODE(home.state.stat().st_mode) == 0o700
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
    assert "daemon.sock" in modes


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_users_connection_is_refused(home: Home, tmp_path: Path) -> None:
    with Peer(home):
        for folder in (home.state, *tmp_path.parents, tmp_path):
            if str(folder).startswith("/tmp/"):
                folder.chmod(0o755)
        (home.state / "daemon.sock").chmod(0o777)
        script = (
            "import os, socket; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
            f"os.chdir({str(home.state)!r}); s.connect('daemon.sock'); s.settimeout(30); "
            "s.sendall(b'{}\\n'); print(s.recv(10))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "b''" or "ConnectionResetError" in done.stderr or "BrokenPipeError" in done.stderr
    await until(lambda: "of user 65534" in home.log.read_text())


@pytest.mark.parametrize("part", ["", "worktrees", "attempts"])
def test_a_home_that_is_a_symlink_is_refused(tmp_path: Path, home: Home, part: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    link = home.state / part if part else tmp_path / "link"
    if part:
        link.rmdir()
    link.symlink_to(elsewhere)
    environment = {} if part else {"FORKJOIN_HOME": str(link)}
    done = forkjoin(tmp_path, "daemon", "start", check=False, env=environment)
    assert done.returncode == 1
    assert f"{link} is not a folder of this user. Move it away, or set FORKJOIN_HOME to another folder." in done.stderr
    assert "Traceback" not in done.stderr
    assert (list(elsewhere.iterdir()), stat.S_IMODE(elsewhere.stat().st_mode)) == ([], 0o755)
    if part:
        link.unlink()


def test_a_home_below_a_symlink_is_used_by_its_resolved_path(tmp_path: Path, home: Home) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    environment = {"FORKJOIN_HOME": str(tmp_path / "link" / "forkjoin")}
    forkjoin(tmp_path, "daemon", "start", env=environment)
    assert "is running" in forkjoin(tmp_path, "daemon", "status").stdout


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_home_of_another_user_is_refused(tmp_path: Path, home: Home) -> None:
    other = tmp_path / "other"
    other.mkdir()
    os.chown(other, 65534, 65534)
    done = forkjoin(tmp_path, "daemon", "start", check=False, env={"FORKJOIN_HOME": str(other)})
    assert (done.returncode, "is not a folder of this user" in done.stderr) == (1, True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_the_environment_is_not_sent_to_another_users_daemon(home: Home) -> None:
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1]); os.setuid(65534); "
        "s.bind('daemon.sock'); s.listen(); print(flush=True); c, _ = s.accept(); print(c.recv(1))"
    )
    home.state.chmod(0o777)
    argv = [sys.executable, "-c", script, str(home.state)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout
        stranger.stdout.readline()
        connection = daemon_connection.try_connect(home)
        assert connection
        with connection, pytest.raises(daemon_connection.DaemonError, match="another user"):
            daemon_connection.say_hello(connection, "cli", "x")
        assert stranger.stdout.read() == "b''\n"
    (home.state / "daemon.sock").unlink()
    home.state.chmod(0o700)


def test_a_home_with_a_path_longer_than_a_sockets_limit_works(tmp_path: Path, repository: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    environment = {"FORKJOIN_HOME": str(deep)}
    try:
        assert "is running" in forkjoin(repository, "daemon", "start", env=environment).stdout
    finally:
        forkjoin(repository, "daemon", "stop", env=environment)


async def test_an_idle_daemon_ends(home: Home, repository: Path) -> None:
    limit(home, idle_minutes=0.001)
    forkjoin(repository, "daemon", "start")
    await until(lambda: not file_lock.is_held(home.daemon_lock))
    assert "leaving: nothing to do" in home.log.read_text()


def test_stopping_the_daemon_is_refused_while_agents_live_unless_they_are_stopped_first(
    home: Home, repository: Path, tmp_path: Path
) -> None:
    forkjoin(repository, "spawn", "sleep 1000")
    refused = forkjoin(tmp_path, "daemon", "stop", check=False)
    assert refused.returncode == 1
    assert "agents are under way (a1)" in refused.stderr
    forkjoin(tmp_path, "daemon", "stop", "--agents")
    status = forkjoin(repository, "daemon", "status", "--json", check=False)
    assert (status.returncode, json.loads(status.stdout)) == (1, {"up": False})
    assert "stopped" in forkjoin(repository, "ps").stdout


def test_a_hanging_daemon_is_ended_and_its_agents_continue(
    home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forkjoin(repository, "spawn", f"until test -e {home.state}/go; do sleep 0.02; done; echo done")
    status = json.loads(forkjoin(repository, "daemon", "status", "--json").stdout)
    os.kill(status["pid"], signal.SIGSTOP)
    monkeypatch.setattr(daemon_connection, "START_S", 0.2)
    monkeypatch.setattr(daemon_connection, "_END_S", 0.2)
    with pytest.raises(
        daemon_connection.DaemonError, match=r"the daemon hangs\. End it with `forkjoin daemon stop --now`"
    ):
        daemon_connection.connect_and_greet(home, "cli", "peer")
    daemon.stop(agents=False, now=True)
    assert not is_running(status["pid"])
    (home.state / "go").touch()
    assert "done" in forkjoin(repository, "wait", "a1").stdout
    assert "Give only one of the two" in forkjoin(repository, "daemon", "stop", "--now", "--agents", check=False).stderr


def test_a_wrong_setting_stops_the_daemon_and_names_file_and_key(home: Home, repository: Path) -> None:
    home.config_file.write_text("[limits]\nmax_runing = 3\n")
    done = forkjoin(repository, "daemon", "start", check=False)
    assert done.returncode == 1
    assert f"{home.config_file}: limits.max_runing" in done.stderr


def test_an_old_git_is_refused_with_a_message(home: Home, repository: Path, tmp_path: Path) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "git").write_text("#!/bin/sh\necho git version 2.37.1\n")
    (fake / "git").chmod(0o755)
    done = forkjoin(repository, "daemon", "start", check=False, env={"PATH": f"{fake}:{os.environ['PATH']}"})
    assert done.returncode == 1
    assert "git 2.37.1 is too old: forkjoin needs 2.38 or newer" in done.stderr


def test_a_stale_socket_of_a_killed_daemon_is_replaced(home: Home, repository: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        here = Path.cwd()
        os.chdir(home.state)
        stale.bind("daemon.sock")
        os.chdir(here)
    assert "is running" in forkjoin(repository, "daemon", "start").stdout


def test_a_relative_home_is_resolved_against_the_working_directory(tmp_path: Path) -> None:
    environment = {"FORKJOIN_HOME": "relative"}
    try:
        assert "is running" in forkjoin(tmp_path, "daemon", "start", env=environment).stdout
        assert (tmp_path / "relative" / "daemon.sock").exists()
        assert not (tmp_path / "relative" / "relative").exists()
    finally:
        forkjoin(tmp_path, "daemon", "stop", env=environment)


def test_a_daemon_sets_damaged_records_aside_and_starts(home: Home, repository: Path) -> None:
    home.records.write_bytes(b"this is no database" * 100)
    assert "is running" in forkjoin(repository, "daemon", "start").stdout
    (copy,) = home.state.glob("records.sqlite.damaged-*Z")
    assert copy.read_bytes() == b"this is no database" * 100


async def test_a_daemon_logs_to_its_own_log_whoever_started_it(home: Home, repository: Path, tmp_path: Path) -> None:
    with (tmp_path / "elsewhere").open("wb") as elsewhere:
        argv = daemon_connection.daemon_command()
        daemon = subprocess.Popen(argv, stdout=elsewhere, stderr=elsewhere, cwd=home.state)  # noqa: ASYNC220
        await until(lambda: home.log.exists() and "the daemon is up" in home.log.read_text())
        forkjoin(repository, "daemon", "stop")
        daemon.wait(GIVE_UP_S)
    assert " up: " in home.log.read_text()
    assert (tmp_path / "elsewhere").read_bytes() == b""
