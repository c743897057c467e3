"""A daemon that is killed at the worst of moments takes no relay with it."""

import itertools
from pathlib import Path

import pytest
from fakes.daemon import FakeDaemon
from forkjoin.connection import reach
from forkjoin.paths import Home
from harness import INITIALIZE, RawRelay


def test_a_relay_outlives_daemons_that_go_while_it_sends(repository: Path, fake: FakeDaemon) -> None:
    """Sending to one that is gone raises SIGPIPE, which ends whoever has not asked not to get it."""
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


def test_a_daemon_that_is_killed_while_it_comes_up_is_started_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reach.daemon_command()
    starts = itertools.chain([["sh", "-c", "kill -9 $$"]], itertools.repeat(real))
    monkeypatch.setattr(reach, "daemon_command", lambda: next(starts))
    reach.connect(home).close()
