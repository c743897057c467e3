"""A daemon that is killed at the worst of moments takes no relay with it."""

import itertools
import json
import socket
import threading
from pathlib import Path

import pytest
from forkjoin.connection import reach
from forkjoin.paths import Home
from forkjoin.version import __version__
from harness import GIVE_UP_S, INITIALIZE, RawRelay


def test_a_relay_outlives_daemons_that_go_while_it_sends(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sending to one that is gone raises SIGPIPE, which ends whoever has not asked not to get it."""
    monkeypatch.chdir(home.state)  # a socket's path may have 108 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("daemon.sock")
        listener.listen()
        going = threading.Thread(target=_go_three_times_then_answer, args=(listener,))
        going.start()
        with RawRelay(repository) as relay:
            relay.send(INITIALIZE)
            assert relay.answer() == {"id": 0, "result": {}}
        going.join(GIVE_UP_S)
    assert relay.process.returncode == 0


#: Without a version it would be taken for an old daemon, and ended: it is this very process.
_WELCOME = json.dumps({"ok": True, "version": __version__}).encode() + b"\n"


def _go_three_times_then_answer(listener: socket.socket) -> None:
    for _ in range(3):
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            lines.readline()
            connection.sendall(_WELCOME)
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb", buffering=0) as lines:
        lines.readline()
        lines.write(_WELCOME)
        assert json.loads(lines.readline())["id"] == 0
        lines.write(b'{"id": 0, "result": {}}\n')
        lines.read()


def test_a_daemon_that_is_killed_while_it_comes_up_is_started_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reach.daemon_command()
    starts = itertools.chain([["sh", "-c", "kill -9 $$"]], itertools.repeat(real))
    monkeypatch.setattr(reach, "daemon_command", lambda: next(starts))
    reach.connect(home).close()
