"""Connecting to the daemon, even from unusual folders or if the daemon hangs, and ending it."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from support.fakes.daemon import FakeDaemon
from support.harness import GIVE_UP_S


def test_connecting_to_a_hanging_daemon_fails_after_one_attempt(
    home: Home, fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_connection, "START_S", 0.1)
    with pytest.raises(
        daemon_connection.DaemonError, match=r"the daemon hangs\. End it with `forkjoin daemon stop --now`"
    ):
        daemon_connection.connect_and_greet(home, "cli", "x")
    assert fake.asked() == 1


def test_connecting_fails_after_several_daemons_ended_before_they_answered(home: Home, fake: FakeDaemon) -> None:
    def go_away() -> None:
        for _ in range(20):
            fake.accept().close()

    going = threading.Thread(target=go_away)
    going.start()
    with pytest.raises(daemon_connection.DaemonError, match="keeps ending before it answers"):
        daemon_connection.connect_and_greet(home, "cli", "x")
    going.join(GIVE_UP_S)


def test_a_process_that_closed_the_connection_is_not_ended(home: Home) -> None:
    """The pid of a closed connection may belong to another process."""
    script = (
        "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1]); "
        "s.bind('daemon.sock'); s.listen(); print(flush=True); c, _ = s.accept(); c.sendall(b'bye'); c.close(); "
        "print(flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", script, str(home.state)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout
        stranger.stdout.readline()
        connection = daemon_connection.try_connect(home)
        assert connection
        stranger.stdout.readline()
        daemon_connection.end_daemon(connection)
        stranger.communicate(timeout=GIVE_UP_S)
    assert stranger.returncode == 0
    (home.state / "daemon.sock").unlink()


def test_a_home_below_an_unreadable_folder_works(tmp_path: Path, home: Home) -> None:
    script = """
import os, sys
from pathlib import Path
from forkjoin.transport import daemon_connection
from forkjoin.core.paths import Home
nowhere = Home(Path("/nowhere"), Path("/nowhere"))
os.chdir(sys.argv[1])
os.getuid() or os.setuid(65534)
print(daemon_connection.try_connect(nowhere))
"""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o311)
    argv = [sys.executable, "-c", script, str(closed)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout == "None\n", done.stderr
