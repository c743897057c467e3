"""How forkjoin fails: the caller can mend it, or we broke a promise; and git may say no, which is either.

A `CallerError` is shown as it is, to a model or a person: it says what was wrong, what would be right and, where it
helps, which tool to call next. Anything else that reaches a boundary is ours, and is logged with its traceback.
"""

import errno
from collections.abc import Iterable

#: What the machine has too little of for now: open files, space, memory, processes.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN})


class ForkjoinError(Exception):
    """The root of all our errors."""


class CallerError(ForkjoinError):
    """Whoever called can put it right; the message says how."""


class BrokenPromiseError(ForkjoinError):
    """Something that forkjoin promises does not hold: a fault of ours, or of the machine."""


def words_of(error: Exception) -> str:
    """What a record says of an error: the words of one of ours, and the kind too of any other."""
    return str(error) if isinstance(error, ForkjoinError) else f"{type(error).__name__}: {error}"


class UnknownAgentError(CallerError):
    def __init__(self, asked: str, known: Iterable[str]) -> None:
        names = ", ".join(known)
        hint = f"This project's newest agents: {names}." if names else "This project has no agents yet."
        super().__init__(f"No agent {asked[:80]!r} in this project. {hint} Call list_agents to see all.")


class RecordsError(ForkjoinError):
    """The records can't be read or written now: a full disk, a lock. What was to be recorded must be tried again."""


def is_passing(error: Exception) -> bool:
    """Whether an error says nothing of what was tried, and trying again later may do."""
    return isinstance(error, RecordsError) or (isinstance(error, OSError) and error.errno in _PASSING)


class GitError(ForkjoinError):
    """git said no: its arguments, exit code and the last line it wrote to stderr."""

    def __init__(self, arguments: Iterable[str], code: int, stderr: str) -> None:
        self.stderr = stderr.strip()
        lines = self.stderr.splitlines()
        self.last_line = lines[-1] if lines else f"exit {code}"
        super().__init__(f"git {' '.join(arguments)[:200]}: {self.last_line[:500]}")
