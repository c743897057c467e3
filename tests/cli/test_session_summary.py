"""forkjoin brief, the summary at the start of a session."""

from pathlib import Path

from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from support.harness import forkjoin


def test_the_session_summary_lists_running_agents_first_then_unmerged_and_failed_ones(
    home: Home, repository: Path
) -> None:
    assert forkjoin(repository, "brief").stdout == ""
    forkjoin(repository, "spawn", "echo x > x.txt  # a task", "--name", "one")
    forkjoin(repository, "spawn", "true", "--name", "two")
    forkjoin(repository, "spawn", "exit 3", "--name", "three")
    forkjoin(repository, "wait", check=False)
    failed = "a3 three: failed, nothing; exit 3"
    lines = forkjoin(repository, "brief").stdout.splitlines()
    assert lines[1:] == [failed, "a1 one: succeeded, unmerged; echo x > x.txt # a task"]
    forkjoin(repository, "merge", "one")
    forkjoin(repository, "spawn", "sleep 1000", "--name", "four")
    forkjoin(repository, "spawn", "echo z > z.txt", "--name", "five")
    forkjoin(repository, "wait", "five")
    lines = forkjoin(repository, "brief").stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines[1:]] == ["a4", "a5", "a3"]
    forkjoin(repository, "rm", "three")
    forkjoin(repository, "merge", "five")
    forkjoin(repository, "stop", "four")
    assert forkjoin(repository, "brief").stdout == ""


def test_the_session_summary_is_empty_outside_a_repository_and_for_an_agent(
    home: Home, repository: Path, tmp_path: Path
) -> None:
    assert forkjoin(tmp_path, "brief").stdout == ""
    assert not file_lock.is_held(home.daemon_lock)
    forkjoin(repository, "spawn", "echo x > x.txt")
    assert forkjoin(repository, "brief", env={"FORKJOIN_TOKEN": "x"}).stdout == ""


def test_the_session_summary_is_empty_if_no_daemon_can_start(home: Home, repository: Path) -> None:
    home.config_file.write_text("no settings")
    done = forkjoin(repository, "brief")
    assert (done.stdout, done.stderr) == ("", "")
