"""The exceptions of forkjoin, and the test whether an error is transient.

A `CallerError` is shown unchanged to a model or a person. Its message describes the mistake and how to correct it, and
where it helps names the tool to call next. Any other exception that reaches a boundary is a defect, and is logged with
its traceback. Standard library only, since the shim imports this module.
"""

import errno
import re
from collections.abc import Iterable
from typing import cast

#: Transient errors of the operating system, which end once a resource such as disk space is free again.
_TRANSIENT_ERRNOS = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "ENOLCK")
)
#: The message of the RuntimeError that Python raises if a thread can't be started (EAGAIN).
_NO_THREAD = "can't start new thread"
#: A pattern for git's messages about the same errors, and about a lock that another git process holds.
_TRANSIENT_MESSAGES = (
    r"No space left on device|Disk quota exceeded|Read-only file system|Too many open files|annot allocate memory"
    r"|Out of memory|Resource temporarily unavailable|\.lock': File exists"
    r"|unable to write file"  # in a checkout: git does not name the reason, which is usually a full disk
)
#: The beginning of the six lines that follow git's message about a lock file.
_ANOTHER = "\n\nAnother git process"


class ForkjoinError(Exception):
    """The base class of forkjoin's exceptions."""


class CallerError(ForkjoinError):
    """An error that the caller can correct. The message says how."""


class NoRepositoryError(CallerError):
    def __init__(self, folder: str) -> None:
        super().__init__(
            f"{folder} is not in a git repository. Start the lead in a repository, or run `git init` there."
        )


class BrokenPromiseError(ForkjoinError):
    """A broken guarantee of forkjoin, because of a defect of forkjoin or of the machine."""


def is_transient(error: BaseException) -> bool:
    """Return whether an error is transient, so that the operation should be retried.

    Examples are a full disk, too many open files, and a lock that another process holds. An exception that was raised
    from a transient error is transient too, unless it is a `CallerError`.
    """
    if isinstance(error, BaseExceptionGroup):
        members: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return all(is_transient(member) for member in members)
    if isinstance(error, RecordsError | TimeoutError) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS
    ):
        return True
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return True
    if isinstance(error, CallerError):
        return False
    if isinstance(error, GitError):
        return bool(re.search(_TRANSIENT_MESSAGES, error.stderr))
    return error.__cause__ is not None and is_transient(error.__cause__)


def describe_error(error: Exception) -> str:
    """Return the message of an exception, prefixed with its class name.

    The messages of forkjoin's own exceptions have no prefix.
    """
    return str(error) if isinstance(error, ForkjoinError) else f"{type(error).__name__}: {error}"


def reason_of(error: Exception) -> str:
    """Return the last line that git wrote to stderr, or the text of any other error."""
    return error.last_line if isinstance(error, GitError) else str(error)


class UnknownAgentError(CallerError):
    def __init__(self, asked: str, known: Iterable[str]) -> None:
        names = ", ".join(known)
        hint = f"This project's newest agents: {names}." if names else "This project has no agents yet."
        super().__init__(f"No agent {asked[:80]!r} in this project. {hint} Call list_agents to see all.")


class RecordsError(ForkjoinError):
    """A failure to read or write the database, for example because the disk is full. Nothing was recorded."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(
            f"The records can't be used now: {why}. Nothing of this was recorded. Call again once that is solved."
        )


class GitError(ForkjoinError):
    """The failure of a git command. The message contains its arguments and the last message on stderr."""

    def __init__(self, arguments: Iterable[str], code: int, stderr: str) -> None:
        self.stderr = stderr.strip()
        message, lock_message, _ = self.stderr.partition(_ANOTHER)
        self.met_lock = bool(lock_message)
        lines = message.splitlines()
        last = next(
            (n for n in reversed(range(len(lines))) if not lines[n][:1].isspace()), 0
        )  # indented lines continue the message
        self.last_line = " ".join(line.strip() for line in lines[last:]) or f"exit {code}"
        if self.met_lock:
            self.last_line += " Remove the lock file if no git process uses the repository."
        super().__init__(f"git {' '.join(arguments)[:200]}: {self.last_line[:500]}")


class GitHungError(GitError):
    """The failure of a git command that was killed because it did not end in time."""


class GitRefusedError(GitError):
    """The failure of a git command with an error that is not transient."""


def git_error(arguments: Iterable[str], code: int, stderr: str) -> GitError:
    """Return a `GitRefusedError`, or a `GitError` if the failure is transient."""
    error = GitError(arguments, code, stderr)
    return error if is_transient(error) else GitRefusedError(arguments, code, stderr)
