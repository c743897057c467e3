"""Environments of leads that outlive the daemon in a file on a tmpfs."""

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import processes_of
from forkjoin.core.environment_file import EnvironmentFile, find_runtime_folder
from forkjoin.core.paths import Home
from support.harness import forkjoin, kill_daemon_of, limit, open_lead, until

ENVIRONMENTS = {"digest": {"NAME": "value", "ODD": os.fsdecode(b"caf\xe9")}}


@pytest.fixture
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder on a tmpfs."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def _saved(folder: Path) -> list[Path]:
    return list(folder.glob("forkjoin-*-environments.json"))


async def test_a_queued_agent_starts_in_its_leads_environment_after_the_daemon_was_killed(
    repository: Path, home: Home, runtime_folder: Path, tmp_path: Path
) -> None:
    limit(home, max_running=1)
    blocked = f"until test -e {home.state}/go; do sleep 0.02; done"
    async with open_lead(repository, MINE="the lead's") as lead:
        _, second = await lead.spawn(blocked, 'echo "$MINE" > mine.txt')
        await lead.last_event(second, "slot")
        await until(lambda: len(_saved(runtime_folder)) == 1)
    daemon = next(pid for pid, words in processes_of(home.state).items() if "daemon\0run" in words)
    (saved,) = _saved(runtime_folder)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    kill_daemon_of(home, daemon)
    (home.state / "go").touch()
    forkjoin(tmp_path, "daemon", "start")  # outside of any project: brings no environment
    await until(lambda: [file.read_text() for file in home.worktrees.glob("*/a2-*/mine.txt")] == ["the lead's\n"])
    await until(lambda: _saved(runtime_folder) == [])
    assert "succeeded" in forkjoin(repository, "wait", second).stdout


async def test_the_environment_file_is_deleted_when_the_daemon_ends_without_agents(
    repository: Path, home: Home, runtime_folder: Path
) -> None:
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn("sleep 1000")
        await until(lambda: len(_saved(runtime_folder)) == 1)
        await lead.call("stop_agents", ids=[first])
    forkjoin(repository, "daemon", "stop", "--now")
    assert list(runtime_folder.iterdir()) == []


def test_environments_written_to_a_tmpfs_are_read_again(runtime_folder: Path) -> None:
    file = EnvironmentFile(find_runtime_folder(), "home")
    assert file.read() == {}
    file.write({"old": {}})
    file.write(ENVIRONMENTS)
    assert file.read() == ENVIRONMENTS
    assert list(runtime_folder.iterdir()) == [file.path]
    file.write({})
    assert not file.path.exists()


def test_nothing_is_written_to_a_disk(tmp_path: Path) -> None:
    if tmp_path.stat().st_dev == Path("/dev/shm").stat().st_dev:
        pytest.skip("the folder for temporary files is on a tmpfs")
    disk = tmp_path / "runtime"
    disk.mkdir(mode=0o700)
    EnvironmentFile(disk, "home").write(ENVIRONMENTS)
    assert list(disk.iterdir()) == []


def test_a_runtime_folder_that_others_may_write_to_is_not_used(runtime_folder: Path) -> None:
    file = EnvironmentFile(runtime_folder, "home")
    file.write(ENVIRONMENTS)
    runtime_folder.chmod(0o770)
    assert file.read() == {}
    file.write({**ENVIRONMENTS, "new": {}})
    runtime_folder.chmod(0o700)
    assert file.read() == ENVIRONMENTS


@pytest.mark.parametrize("content", [b"", b"\0", b"{", b"[]", b'{"digest": {"NAME": 1}}', b"\xff"])
def test_a_damaged_file_is_ignored(runtime_folder: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = EnvironmentFile(runtime_folder, "home")
    file.path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert file.read() == {}
    assert bool(caplog.records) == bool(content)
