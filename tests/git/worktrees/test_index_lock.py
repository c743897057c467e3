"""An index.lock is created atomically, and only a lock of the same home is taken over."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forkjoin.git.worktrees.index_lock import release_index, try_lock_index

OURS = "forkjoin /home/worktrees"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "git").mkdir()
    return tmp_path / "git" / "index.lock"


#: A script that locks the index, and kills itself before or after the first call of a given function.
KILLED = """
import os, sys
from pathlib import Path
from forkjoin.git.worktrees.index_lock import try_lock_index
file, owner, call, when = sys.argv[1:]
real = getattr(os, call)
def die(*arguments, **named):
    when == "after" and real(*arguments, **named)
    os.kill(os.getpid(), 9)
setattr(os, call, die)
try_lock_index(Path(file), owner)
"""


@pytest.mark.parametrize(
    ("call", "when"),
    [("open", "after"), ("write", "before"), ("write", "after"), ("link", "before"), ("link", "after")],
)
def test_the_next_daemon_takes_the_lock_after_a_kill_at_any_step(file: Path, call: str, when: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(file), OURS, call, when], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not file.exists() or file.read_text() == OURS
    lock = try_lock_index(file, OURS)
    assert lock is not None
    assert file.read_text() == OURS
    release_index(file, lock)
    assert list(file.parent.iterdir()) == []


def no_links(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_the_lock_is_created_with_and_without_hard_links(
    file: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    lock = try_lock_index(file, OURS)
    assert lock is not None
    assert [path.name for path in file.parent.iterdir()] == ["index.lock"]
    assert file.read_text() == OURS
    assert try_lock_index(file, OURS) is None, "its holder still runs"
    release_index(file, lock)
    assert not file.exists()


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("content", ["", "DIRC of a git", "forkjoin /another/worktrees", f"{OURS}-too", OURS[:-1]])
def test_a_lock_of_another_owner_is_never_taken(
    file: Path, monkeypatch: pytest.MonkeyPatch, content: str, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    file.write_text(content)
    assert try_lock_index(file, OURS) is None
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [("index.lock", content)]


def test_a_full_disk_raises_an_error_and_leaves_no_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        try_lock_index(file, OURS)
    assert list(file.parent.iterdir()) == []


def test_a_lock_that_replaced_ours_is_not_deleted(file: Path) -> None:
    lock = try_lock_index(file, OURS)
    assert lock is not None
    file.unlink()
    file.write_text("of a git")
    release_index(file, lock)
    assert file.read_text() == "of a git"


def test_a_lock_that_could_not_be_deleted_is_taken_over_later(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    lock = try_lock_index(file, OURS)
    assert lock is not None
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OSError, match="Read-only"):
            release_index(file, lock)
    again = try_lock_index(file, OURS)
    assert again is not None
    release_index(file, again)
