"""How forkjoin fails: the caller can mend it, or we broke a promise; and git may say no, which is either.

A `CallerError` is shown as it is, to a model or a person: it says what was wrong, what would be right and, where it
helps, which tool to call next. Anything else that reaches a boundary is ours, and is logged with its traceback.
Standard library only, since the shim uses it too.
"""

import errno
import re
from collections.abc import Iterable
from typing import cast

#: Errors of the operating system that pass by themselves, or once somebody frees what is short.
_PASSING = frozenset(
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "ENOLCK")
)
#: What Python makes of the EAGAIN of a thread that can't be started, which it raises as a RuntimeError.
_NO_THREAD = "can't start new thread"
#: git's words for the same, and for a lock that another git holds for a moment; compiled where they are needed.
_PASSING_WORDS = (
    r"No space left on device|Disk quota exceeded|Read-only file system|Too many open files|annot allocate memory"
    r"|Out of memory|Resource temporarily unavailable|\.lock': File exists"
    r"|unable to write file"  # of a checkout: a full disk, as a rule; git does not say
)
#: What git says after it has named a lock, on six lines.
_ANOTHER = "\n\nAnother git process"


class ForkjoinError(Exception):
    """The root of all our errors."""


class CallerError(ForkjoinError):
    """Whoever called can put it right; the message says how."""


class NoRepositoryError(CallerError):
    def __init__(self, folder: str) -> None:
        super().__init__(f"{folder} is in no git repository; start the lead in one, or run git init there.")


class BrokenPromiseError(ForkjoinError):
    """Something that forkjoin promises does not hold: a fault of ours, or of the machine."""


def is_passing(error: BaseException) -> bool:
    """Whether an error is of the moment: a full disk, no descriptor left, a lock that another holds.

    What failed so is to be tried again, and is nobody's failure. An error that was raised from such a one is one too,
    unless it says what the caller is to do.
    """
    if isinstance(error, BaseExceptionGroup):
        inside: tuple[BaseException, ...] = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return all(is_passing(one) for one in inside)
    if isinstance(error, RecordsError | TimeoutError) or (isinstance(error, OSError) and error.errno in _PASSING):
        return True
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return True
    if isinstance(error, CallerError):
        return False
    if isinstance(error, GitError):
        return bool(re.search(_PASSING_WORDS, error.stderr))
    return error.__cause__ is not None and is_passing(error.__cause__)


def words_of(error: Exception) -> str:
    """What a record says of an error: the words of one of ours, and the kind too of any other."""
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
    """The records can't be read or written now: a full disk, a lock. What was to be recorded must be tried again."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"The records can't be used now: {why}. Nothing of this was recorded; call again then.")


class GitError(ForkjoinError):
    """git said no: its arguments, exit code and the last line it wrote to stderr."""

    def __init__(self, arguments: Iterable[str], code: int, stderr: str) -> None:
        self.stderr = stderr.strip()
        said, locked, _ = self.stderr.partition(_ANOTHER)
        self.met_lock = bool(locked)
        lines = said.splitlines()
        last = next((n for n in reversed(range(len(lines))) if not lines[n][:1].isspace()), 0)  # others go on from it
        self.last_line = " ".join(line.strip() for line in lines[last:]) or f"exit {code}"
        if self.met_lock:
            self.last_line += " Remove it if no git is at work there."
        super().__init__(f"git {' '.join(arguments)[:200]}: {self.last_line[:500]}")


class GitHungError(GitError):
    """git did not come to an end, and was ended."""


class GitRefusedError(GitError):
    """git said no, and would say so again: it is nothing that passes."""


def git_error(arguments: Iterable[str], code: int, stderr: str) -> GitError:
    """What to raise of a call of git that failed."""
    error = GitError(arguments, code, stderr)
    return error if is_passing(error) else GitRefusedError(arguments, code, stderr)
