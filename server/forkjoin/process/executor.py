"""The interface to the machine that runs attempts.

An `AttemptSpec` says what to run, and nothing about where. Its handle is a string that the caller chooses and writes to
disk before anything starts. A handle that is submitted again after a crash starts nothing twice.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from forkjoin.core.outcome import Outcome
from forkjoin.core.tree_limits import UNLIMITED, TreeLimits


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """One program to run, with its environment and limits."""

    handle: str  #: name of the attempt: lower-case letters, digits and `-`
    argv: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]  #: complete, except for the attempt's mark; never written to a disk
    input: bytes = b""  #: the first bytes for the program's stdin
    input_complete: bool = True  #: whether stdin is closed after `input`
    timeout_s: float | None = None  #: seconds until the attempt is ended
    stderr_to_stdout: bool = False
    silence_s: float | None = None  #: seconds without output until the attempt is ended
    log_bytes: int = 64 * 1024 * 1024  #: size limit of the output, and of stderr; head and tail are kept
    keep_unread_output: bool = False  #: whether output that was not passed to `release_output` must be kept
    limits: TreeLimits = UNLIMITED  #: the limits of all attempts together are known to the executor
    about: Mapping[str, object] = field(default_factory=dict[str, object])  #: the agent's record, as a JSON object


#: Bytes of output before a page that are searched for a secret which begins there.
_SECRET_BYTES = 8 * 1024


class Page(NamedTuple):
    """A piece of what a program printed."""

    data: bytes
    start: int  #: offset of the first byte; higher than requested if bytes were dropped
    size: int  #: bytes printed in all


@dataclass(frozen=True, slots=True)
class Capacity:
    """The size and load of the machine that runs attempts."""

    cores: int
    memory: int  #: bytes
    free_memory: int  #: bytes
    load: float  #: average over the last minute


class Executor(Protocol):
    async def submit(self, spec: AttemptSpec) -> None:
        """Start an attempt, unless its handle was started or cancelled before.

        Returns when the input is on disk and the start is under way. If the start fails later, `outcome` says why.

        Raises:
            OSError: There is no space. Nothing was started, and the attempt may be submitted again.
            ValueError: The environment contains a variable that can't be passed to a program.
        """
        ...

    async def send(self, handle: str, data: bytes, *, once: bool = False) -> bool:
        """Append data to a program's input. Return whether the data is on disk.

        Data is not accepted once the input is closed.

        Args:
            once: Whether to do nothing if the input already contains the data.

        Raises:
            OSError: There is no space. No part of the data was written.
        """
        ...

    async def close_input(self, handle: str) -> None:
        """Close a program's stdin after the data that was sent. Idempotent."""
        ...

    def output(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        """Yield a program's output from offset `after` on, until the attempt has ended.

        Bytes that were dropped are replaced by zeros.
        """
        ...

    async def read_output(self, handle: str, start: int, limit: int, *, errors: bool = False) -> Page:
        """Return at most `limit` bytes of output from offset `start` on.

        The bytes end before the next dropped byte.

        Args:
            start: Relative to the end if negative.
            errors: Whether to read stderr instead of stdout.
        """
        ...

    async def release_output(self, handle: str, offset: int) -> None:
        """Permit the executor to drop output before `offset`.

        `output` must not be called for these bytes again.
        """
        ...

    async def outcome(self, handle: str) -> Outcome:
        """Wait until the attempt has ended. Return how it ended.

        The outcome's kind is `lost` if the machine or the shim vanished.
        """
        ...

    async def cancel(self, handle: str, grace: float) -> list[str]:
        """End all processes of an attempt, or keep it from ever being started. Idempotent.

        Args:
            grace: Seconds from SIGTERM to SIGKILL.

        Returns:
            Names and pids of the processes that could not be ended. Empty on success.
        """
        ...

    async def mark_variables(self, handle: str) -> Mapping[str, str]:
        """Return the environment variables that make a process part of an attempt.

        They work for any process, no matter which program starts it. The attempt exists from now on, so that `cancel`
        ends the process.
        """
        ...

    async def freeze(self, handle: str) -> None:
        """Stop all processes of an attempt, and its time limits. Idempotent.

        It is no error if the attempt has ended.

        Raises:
            OSError: There is no space for the record, or the program does not start. The attempt goes on.
        """
        ...

    async def thaw(self, handle: str) -> None:
        """Resume all processes of an attempt, and its time limits. Idempotent.

        The silence limit is included.
        """
        ...

    async def pause_silence_limit(self, handle: str) -> None:
        """Ignore the attempt's silence until `thaw` is called. Idempotent.

        Meanwhile the attempt waits for an answer.
        """
        ...

    async def forget(self, handle: str) -> None:
        """Remove the files of an attempt that has ended."""
        ...

    async def find_owner(self, pid: int) -> str | None:
        """Return the handle of the attempt to which a process belongs.

        Return `None` if the process belongs to no attempt.

        Raises:
            CallerError: The process has ended, or is not visible from here.
        """
        ...

    async def list_handles(self) -> list[str]:
        """Return the handles of all attempts that were not forgotten."""
        ...

    async def enforce_limits(self) -> None:
        """Enforce the limits that a shim can't enforce alone. Runs until it is cancelled."""
        ...

    async def measure_memory(self, handles: Iterable[str]) -> dict[str, int]:
        """Return the bytes of memory that each of these attempts uses.

        Attempts that have ended are left out.
        """
        ...

    async def capacity(self) -> Capacity: ...


class OutputTail(NamedTuple):
    """The end of a program's output, without secrets."""

    text: str
    omitted: int  #: bytes of output before it


async def read_tail(
    executor: Executor,
    handle: str,
    limit: int,
    redact_end: Callable[[str, str], str],
    *,
    errors: bool = False,
    whole_lines: bool = False,
) -> OutputTail:
    """Return the end of a program's output, `limit` bytes at most.

    Args:
        redact_end: Removes secrets from its second argument, which follows the first.
        errors: Whether to read stderr instead of stdout.
        whole_lines: Whether to leave out a partial first line, unless it is the only one.
    """
    most = limit + _SECRET_BYTES
    page = await executor.read_output(handle, -most, most, errors=errors)
    data = page.data[-limit:]
    if whole_lines and len(data) < page.size:
        data = data.partition(b"\n")[2] or data
    before = page.data.removesuffix(data) if data else b""
    text = redact_end(before.decode(errors="replace"), data.decode(errors="replace"))
    return OutputTail(text, page.size - len(data))
