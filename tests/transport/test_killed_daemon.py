"""A daemon that is killed while it starts or receives."""

import itertools
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from support.fakes.daemon import FakeDaemon
from support.harness import INITIALIZE, RawRelay


def test_a_relay_survives_daemons_that_end_while_it_sends(repository: Path, fake: FakeDaemon) -> None:
    """Sending to a closed socket raises SIGPIPE, which ends a process by default."""
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE)
        for _ in range(3):
            with fake.connection():
                pass
        with fake.connection() as last:
            assert last.read() == INITIALIZE
            last.say({"id": 0, "result": {}})
            assert relay.answer() == {"id": 0, "result": {}}
            relay.end()
    assert relay.process.returncode == 0


def test_a_daemon_that_is_killed_while_it_starts_is_started_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = daemon_connection.daemon_command()
    starts = itertools.chain([["sh", "-c", "kill -9 $$"]], itertools.repeat(real))
    monkeypatch.setattr(daemon_connection, "daemon_command", lambda: next(starts))
    daemon_connection.connect(home).close()
