"""The daemon's log: JSON lines, bounded and private, and its display for people."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from forkjoin.core import daemon_log
from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, forkjoin, running, until

#: A script for a process of its own, so that the loggers and descriptors of the tests stay as they are.
SCRIPT = """
import logging, os, sys
from pathlib import Path
from forkjoin.core import daemon_log
from forkjoin.core.redaction import redact
daemon_log.LIMIT = {limit}
daemon_log.open_journal(Path({file!r}), redact)
log = logging.getLogger("forkjoin.room")
"""


def _run(file: Path, script: str, limit: int = daemon_log.LIMIT) -> None:
    source = SCRIPT.format(file=str(file), limit=limit) + script
    subprocess.run([sys.executable, "-c", source], check=True, timeout=GIVE_UP_S)


def _entries(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_entry_has_a_time_a_message_and_the_agent(tmp_path: Path) -> None:
    _run(
        tmp_path / "log",
        """
with daemon_log.concerning(agent="a1"):
    with daemon_log.concerning(connection=7):
        log.warning("two\\nlines of %s", "words")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("it fell")
log.info("nobody's")
""",
    )
    first, second, third = _entries(tmp_path / "log")
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "what": "room",
        "agent": "a1",
        "connection": "7",
        "words": "two\nlines of words",
    }
    assert (second["agent"], second["level"], second["words"]) == ("a1", "error", "it fell")
    assert second["traceback"].startswith("Traceback")
    assert second["traceback"].endswith("ZeroDivisionError: division by zero")
    assert "agent" not in third


def test_a_long_log_is_rotated_and_the_previous_log_is_kept(tmp_path: Path) -> None:
    script = """
os.umask(0)
for number in range(300):
    log.info("%d %s", number, "x" * 100)
print("printed by a library", flush=True)
"""
    folder = tmp_path / "logs"
    folder.mkdir()
    _run(folder / "log", script, limit=10_000)
    assert sorted(path.name for path in folder.iterdir()) == ["log", "log.1"]
    for path in folder.iterdir():
        assert path.stat().st_size <= 10_200
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (folder / "log").read_text().endswith("printed by a library\n")
    kept = _entries(folder / "log.1")
    assert [entry["words"].split()[0] for entry in kept] == [
        str(int(kept[0]["words"].split()[0]) + n) for n in range(len(kept))
    ]


def test_log_messages_are_redacted_and_cut(tmp_path: Path) -> None:
    key = "ghp_" + "Q7" * 20
    _run(tmp_path / "log", f"log.error('it was {key}'); log.error('x' * 1_000_000)")
    first, second = _entries(tmp_path / "log")
    assert first["words"] == "it was [redacted]"
    assert len(second["words"]) < 10_000


def test_logging_to_a_full_disk_raises_no_error() -> None:
    _run(Path("/dev/full"), "log.error('unheard'); log.error('again'); log.handlers")


def test_the_log_can_be_read_without_a_daemon(repository: Path, home: Home) -> None:
    assert "there is no log yet" in forkjoin(repository, "daemon", "logs").stdout
    forkjoin(repository, "daemon", "start")
    forkjoin(repository, "daemon", "stop")
    shown = forkjoin(repository, "daemon", "logs").stdout.splitlines()
    assert "the daemon is up" in shown[0]
    assert not shown[0].startswith("{")
    assert shown[-1].endswith("down")
    assert forkjoin(repository, "daemon", "logs", "-n", "1").stdout.splitlines() == shown[-1:]
    as_json = forkjoin(repository, "daemon", "logs", "--json").stdout.splitlines()
    assert [json.loads(line)["words"] for line in as_json][-1] == "down"


@pytest.fixture
def written(home: Home) -> None:
    """A previous and a current log in the home, written by the test."""
    (home.state / "daemon.log.1").write_text('{"time": "t0", "level": "info", "words": "oldest"}\n')
    home.log.write_text(
        '{"time": "t1", "level": "error", "agent": "a3", "words": "fell\\u001b[2J", "traceback": "A\\nB"}\n'
    )


def test_the_previous_log_comes_first_with_indented_tracebacks_and_no_control_characters(
    home: Home, repository: Path, written: None
) -> None:
    shown = forkjoin(repository, "daemon", "logs").stdout
    assert shown == "t0 info oldest\nt1 error a3: fell\\u001b[2J\n    A\n    B\n"


def test_following_the_log_continues_after_a_rotation(home: Home, repository: Path, written: None) -> None:
    with running(repository, "daemon", "logs", "-f", "-n", "1") as reader:
        assert reader.stdout
        assert reader.stderr
        shown = [reader.stdout.readline() for _ in range(3)]
        assert shown[0].startswith("t1 error")
        with home.log.open("a") as log:
            log.write('{"time": "t2", "level": "info", "wor')
            log.flush()
            log.write('ds": "halves"}\n')
        assert reader.stdout.readline() == "t2 info halves\n"
        home.log.rename(home.state / "daemon.log.1")
        home.log.write_text('{"time": "t3", "level": "info", "words": "new"}\n')
        assert reader.stdout.readline() == "t3 info new\n"
        reader.send_signal(signal.SIGINT)
        assert reader.wait(GIVE_UP_S) == 130
        assert "Traceback" not in reader.stderr.read()


async def test_an_error_of_an_agent_is_logged_with_its_id(home: Home, repository: Path) -> None:
    forkjoin(repository, "spawn", "true", "--name", "poor")
    forkjoin(repository, "wait")
    forkjoin(repository, "spawn", "true")
    os.chmod(home.worktrees, 0o700)
    folder = next(home.worktrees.iterdir())
    forkjoin(repository, "wait")
    moved = folder.rename(folder.with_name("moved"))
    folder.write_text("a file stands where the worktrees go")
    forkjoin(repository, "spawn", "true")
    assert forkjoin(repository, "wait", check=False).returncode == 1
    await until(lambda: any(one.get("agent") == "a3" and "traceback" in one for one in _entries(home.log)))
    folder.unlink()
    moved.rename(folder)
