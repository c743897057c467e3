"""The seam to other machines: what an attempt is, and what whoever runs one can be asked.

A spec says everything that is needed and nothing about where. A handle is a plain string, known before anything
starts, so that it can be on disk first; submitting the same handle again after a crash starts nothing twice.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from forkjoin.core.model import UNLIMITED, Outcome, TreeLimits


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """One process to run."""

    handle: str  #: names the attempt, and is made of what a file name may hold
    argv: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]  #: the whole of it, but for the mark; never written to a disk
    input: bytes = b""  #: the first bytes for its stdin
    closed: bool = True  #: whether nothing follows them
    timeout_s: float | None = None  #: seconds until its tree is ended
    together: bool = False  #: whether stderr goes where stdout goes, as in a terminal
    silence_s: float | None = None  #: seconds without a byte printed until its tree is ended
    log_bytes: int = 64 * 1024 * 1024  #: kept of what it prints, and of its errors: the beginning, and the end
    keeps_unread: bool = False  #: whether of its output only that may be dropped which was given to `release`
    limits: TreeLimits = UNLIMITED  #: what it may take; the limits of all together are the executor's own
    #: whose attempt it is, for whoever finds its files without the records; small, and what JSON can hold
    about: Mapping[str, object] = field(default_factory=dict[str, object])


#: Bytes before the end of what was printed in which a key is looked for that the end would cut.
_BEFORE = 8 * 1024


class Page(NamedTuple):
    """A piece of what was printed."""

    data: bytes
    start: int  #: of its first byte: after the one asked for where those between were dropped
    size: int  #: how many bytes were printed in all


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is; memory in bytes, the load as an average over the last minute."""

    cores: int
    memory: int
    free_memory: int
    load: float


class Executor(Protocol):
    async def submit(self, spec: AttemptSpec) -> None:
        """Start it, unless its handle was started or cancelled before.

        Returns once its input is on disk and it is on its way; what keeps it from starting then, its outcome says.

        Raises:
            OSError: There is no room for it. Nothing was started, and it may be submitted again.
            ValueError: Its environment has what no program can be given.
        """
        ...

    async def send(self, handle: str, data: bytes, *, once: bool = False) -> bool:
        """Append to its input, unless that was closed: all of it is on disk when this returns; whether it is.

        With `once`, what was sent before is not sent again.

        Raises:
            OSError: There is no room for it. Nothing of it was written.
        """
        ...

    async def close_input(self, handle: str) -> None:
        """Let its stdin end after what was sent. Doing so twice is no error."""
        ...

    def output(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        """What it prints from byte `after` on, as it comes, until it has ended and all was given.

        What was dropped comes as zeros.
        """
        ...

    async def read_output(self, handle: str, start: int, limit: int, *, errors: bool = False) -> Page:
        """At most `limit` bytes from `start` (from the end where negative); none from behind what was dropped."""
        ...

    async def release(self, handle: str, offset: int) -> None:
        """Say that nobody will read its output before `offset` as it comes: there it may be shortened."""
        ...

    async def outcome(self, handle: str) -> Outcome:
        """How it ended, once it has. Never raises for a machine's death: that is `lost`."""
        ...

    async def cancel(self, handle: str, grace: float) -> list[str]:
        """End its whole tree, by force after `grace` seconds; idempotent. One that was not started never will be.

        Returns:
            What could not be ended, by name and pid: empty is success.
        """
        ...

    async def mark(self, handle: str) -> Mapping[str, str]:
        """The variables by which what somebody else starts is of this attempt: from now on there is one to `cancel`."""
        ...

    async def freeze(self, handle: str) -> None:
        """Stop its whole tree in midst, and its limits of time with it; idempotent, and nothing for one that has ended.

        Raises:
            OSError: There is no room to note so, and it goes on; or it does not come up.
        """
        ...

    async def thaw(self, handle: str) -> None:
        """Let what was frozen go on, and its silence count; idempotent."""
        ...

    async def excuse(self, handle: str) -> None:
        """Let its silence not count until it is thawed: it waits for somebody; idempotent."""
        ...

    async def forget(self, handle: str) -> None:
        """Remove its files. Only for what has ended."""
        ...

    async def find_owner(self, pid: int) -> str | None:
        """Return the handle of the attempt that a process belongs to, or `None`.

        Raises:
            CallerError: That can't be told.
        """
        ...

    async def handles(self) -> list[str]:
        """All that is there of, until it is forgotten."""
        ...

    async def watch(self) -> None:
        """See to it, for ever, that all keep to their limits, whatever they do to who holds these."""
        ...

    async def taken(self, handles: Iterable[str]) -> dict[str, int]:
        """Bytes of memory that those of these take which run."""
        ...

    async def capacity(self) -> Capacity: ...


class End(NamedTuple):
    """The end of what was printed, without keys."""

    text: str
    before: int  #: how many bytes were printed before it


async def read_end(
    executor: Executor,
    handle: str,
    limit: int,
    redact_end: Callable[[str, str], str],
    *,
    errors: bool = False,
    lines: bool = False,
) -> End:
    """Return the end of what an attempt has printed, `limit` bytes at most.

    Args:
        redact_end: Takes keys out of its second text, which follows the first.
        errors: Whether it is that of stderr.
        lines: Whether it is to begin with a whole line, if it has one.
    """
    most = limit + _BEFORE
    page = await executor.read_output(handle, -most, most, errors=errors)
    data = page.data[-limit:]
    if lines and len(data) < page.size:
        data = data.partition(b"\n")[2] or data
    before = page.data.removesuffix(data) if data else b""
    text = redact_end(before.decode(errors="replace"), data.decode(errors="replace"))
    return End(text, page.size - len(data))
