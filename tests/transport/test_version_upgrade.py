"""Daemon and clients of different versions: the newest daemon wins, and agents go on."""

import json
import os
import signal
import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from forkjoin.version import __version__
from support.harness import GIVE_UP_S, INITIALIZE, INITIALIZED, RawRelay, forkjoin
from support.installations import Install

NEWER = "9.9.9"


def _daemon(home: Home) -> tuple[int, str]:
    """Return the pid and version of the daemon, asked as the oldest relay would."""
    connection = daemon_connection.connect(home)
    greeting = {"protocol": 0, "version": "0", "kind": "cli", "relay": "x", "cwd": "/"}
    connection.sendall(json.dumps(greeting).encode() + b"\n")
    with connection.makefile("rb") as file:
        answer: Any = json.loads(file.readline())
    connection.close()
    assert answer["ok"]
    return answer["pid"], answer["version"]


def _begin(relay: RawRelay) -> None:
    relay.send(INITIALIZE, INITIALIZED)
    relay.answer()


def test_a_newer_relay_ends_an_older_daemon_and_neither_agents_nor_the_older_lead_notice(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    newer = Install(tmp_path / "newer", NEWER)
    with RawRelay(repository) as old:
        _begin(old)
        old.call(1, "spawn_agent", task=f"until test -e {home.state}/go; do sleep 0.02; done; echo lived on")
        before, version = _daemon(home)
        assert version == __version__
        with RawRelay(repository, newer.relay) as new:
            _begin(new)
            after, version = _daemon(home)
            assert (after != before, version) == (True, NEWER)
            (home.state / "go").touch()
            waited = old.call(2, "wait_agents", ids=["a1"], timeout_s=GIVE_UP_S)["result"]["structuredContent"]
            assert waited["finished"][0]["summary"] == "lived on"
            assert new.call(1, "get_status")["result"]["structuredContent"]["version"] == NEWER
        assert _daemon(home) == (after, NEWER)  # the older relay connected to it again, and did not end it


def test_older_commands_are_served_by_a_newer_daemon_and_do_not_end_it(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    newer = Install(tmp_path / "newer", NEWER, protocol=2)
    assert newer.forkjoin(repository, "daemon", "start").returncode == 0
    before = _daemon(home)
    assert before[1] == NEWER
    assert "a1" in forkjoin(repository, "spawn", "true").stdout
    assert forkjoin(repository, "wait").returncode == 0
    assert _daemon(home) == before


def test_a_command_of_a_newer_protocol_ends_the_older_daemon_that_refuses_it(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    forkjoin(repository, "daemon", "start")
    newer = Install(tmp_path / "newer", NEWER, protocol=2)
    done = newer.forkjoin(repository, "spawn", "true")
    assert "a1" in done.stdout, done.stderr
    assert _daemon(home)[1] == NEWER


def test_a_relay_older_than_a_downgrade_does_not_end_the_daemon(repository: Path, home: Home, tmp_path: Path) -> None:
    install = Install(tmp_path / "install", NEWER)
    with RawRelay(repository, install.relay) as relay:
        _begin(relay)
        first, version = _daemon(home)
        assert version == NEWER
        install.set_version(__version__)
        os.kill(first, signal.SIGKILL)
        assert "result" in relay.call(1, "get_status")
        second = _daemon(home)
        assert second[1] == __version__
        assert "result" in relay.call(2, "get_status")
        assert _daemon(home) == second
    assert home.log.read_text().count(" is up: ") == 2


def test_a_daemon_that_cant_serve_a_client_says_how_to_solve_it(repository: Path, home: Home, tmp_path: Path) -> None:
    forkjoin(repository, "daemon", "start")
    twin = Install(tmp_path / "twin", __version__, protocol=2)  # the version is not newer, so it may not end the daemon
    refused = twin.forkjoin(repository, "ps")
    assert refused.returncode == 1
    assert "knows protocols up to 1, not 2. Stop it with `forkjoin daemon stop`" in refused.stderr
    assert "the daemon has ended" in twin.forkjoin(repository, "daemon", "stop").stdout
    assert twin.forkjoin(repository, "ps").returncode == 0


@pytest.mark.parametrize(("protocol", "served"), [(0, True), (1, True), (2, False)])
def test_older_hellos_are_served_and_newer_hellos_get_the_daemons_version(
    home: Home, repository: Path, protocol: int, served: bool
) -> None:
    with daemon_connection.connect(home) as connection, connection.makefile("rb") as file:
        greeting = {"protocol": protocol, "version": "0", "kind": "cli", "relay": "x", "cwd": str(repository)}
        connection.sendall(json.dumps(greeting).encode() + b"\n")
        answer = json.loads(file.readline())
        assert (answer["ok"], answer["version"], answer["protocol"]) == (served, __version__, 1)
        assert isinstance(answer["pid"], int)


def test_versions_are_ordered() -> None:
    order = daemon_connection._order  # pyright: ignore[reportPrivateUsage]
    ascending = ["0", "0.1.0rc1", "0.1.0rc2", "0.1.0", "0.1.1", "0.9", "0.10", "1.0a1", "1.0", "1.0.1"]
    assert all(order(a) < order(b) for a, b in pairwise(ascending))


def test_records_of_a_newer_forkjoin_are_reported_to_lead_and_person(repository: Path, home: Home) -> None:
    forkjoin(repository, "daemon", "start")
    forkjoin(repository, "daemon", "stop")
    with sqlite3.connect(home.records) as records:
        records.execute("PRAGMA user_version = 999")
    records.close()
    person = forkjoin(repository, "ps", check=False)
    assert person.returncode == 1
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE)
        lead = relay.answer()
    assert lead["id"] == INITIALIZE["id"]
    for words in (person.stderr, lead["error"]["message"]):
        assert "was written by a newer forkjoin" in words
        assert "Install that version again" in words
        assert "Traceback" not in words
        assert '{"time"' not in words


def test_a_lead_gets_the_reason_if_no_daemon_can_start_and_continues_once_one_can(repository: Path, home: Home) -> None:
    good = home.config_file.read_text()
    with RawRelay(repository) as relay:
        _begin(relay)
        pid, _ = _daemon(home)
        home.config_file.write_text("[limits]\nmax_runing = 3\n")
        os.kill(pid, signal.SIGKILL)
        answer = relay.call(1, "get_status")
        assert "limits.max_runing" in answer["error"]["message"]
        assert "then call list_agents" in answer["error"]["message"]
        home.config_file.write_text(good)
        assert relay.call(2, "get_status")["result"]["isError"] is False
