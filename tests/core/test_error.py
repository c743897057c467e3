"""The distinction between transient and permanent errors."""

import errno
import threading

import pytest
from forkjoin.core.error import (
    BrokenPromiseError,
    CallerError,
    GitError,
    GitRefusedError,
    RecordsError,
    git_error,
    is_transient,
)


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        RecordsError("a full disk"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EMFILE, "Too many open files"),
        TimeoutError(),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        GitError(["commit"], 128, "error: file write error: No space left on device\nfatal: unable to write"),
        GitError(
            ["update-ref"], 128, "fatal: Unable to create '/x/.git/packed-refs.lock': File exists.\n\nAnother git"
        ),
        _caused(BrokenPromiseError("it stands half moved"), OSError(errno.EROFS, "Read-only file system")),
        ExceptionGroup("both", [OSError(errno.ENFILE, ""), RecordsError("locked")]),
    ],
    ids=repr,
)
def test_an_error_is_transient(error: BaseException) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        CallerError("no such base"),
        BrokenPromiseError("it can't go there"),
        OSError(errno.ENOENT, "No such file or directory"),
        GitError(["merge-tree"], 128, "fatal: not something we can merge"),
        GitError(["update-ref"], 128, "fatal: cannot lock ref 'refs/heads/main': is at 1 but expected 2"),
        ExceptionGroup("both", [OSError(errno.ENFILE, ""), ValueError("ours")]),
        RuntimeError("ours"),
        _caused(CallerError("it can't be brought there"), OSError(errno.ENOSPC, "No space left on device")),
    ],
    ids=repr,
)
def test_an_error_is_permanent(error: BaseException) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("said", "refused"), [("fatal: not something we can merge", True), ("error: No space left on device", False)]
)
def test_a_transient_git_error_is_no_refusal(said: str, refused: bool) -> None:
    assert isinstance(git_error(["commit"], 128, said), GitRefusedError) is refused


def test_a_failure_to_start_a_thread_is_transient() -> None:
    former = threading.stack_size(1 << 46)  # larger than the address space
    try:
        with pytest.raises(RuntimeError) as refused:
            threading.Thread(target=print).start()
    finally:
        threading.stack_size(former)
    assert is_transient(refused.value)
