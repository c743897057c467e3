"""Attempts on this machine: a folder and a shim each.

Whether an attempt lives is asked of its lock, which daemon and shim hold together from before the fork: whoever can
take it knows that neither is there. So a daemon that died between any two steps leaves no doubt behind: no lock and
no started.json means that nothing was started, no lock and no end.json that it was lost. What the files are is told
in shim.py.
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import anyio
import psutil
from anyio import CapacityLimiter, to_thread
from pydantic import TypeAdapter, ValidationError

from forkjoin import lock
from forkjoin.attempt import groups, hierarchy, in_all, log, open_files, process, shims, usage
from forkjoin.attempt.executor import AttemptSpec, Capacity, Page
from forkjoin.model import UNLIMITED, Outcome, TreeLimits

_CHUNK = 256 * 1024
#: How soon output is looked for again: at once while it flows, more seldom the longer it is silent.
_SOONEST_S, _LATEST_S = 0.02, 0.4
#: How long a shim that was asked to end its tree may take beyond the grace, before that is done without it.
_SHIM_WAIT_S = process.KILL_WAIT_S + 5.0
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")
#: What there is when the disk is too full to write how an attempt ended. Its output may have been cut by then, too,
#: so that no end but this one would be true.
_FULL = Outcome("lost", error="the disk was full when it ended")

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


@dataclass(frozen=True, slots=True)
class _Orders:
    """What a daemon reads again of spec.json."""

    log_bytes: int


_ORDERS = TypeAdapter(_Orders)
_IDENTITY = TypeAdapter(process.Identity)
_OUTCOME = TypeAdapter(Outcome)


class LocalExecutor:
    """Runs attempts under `folder`; `wake` is what a shim executes to start a daemon where none has `daemon_lock`.

    `together` is what all of them may take.
    """

    def __init__(self, folder: Path, daemon_lock: Path, wake: Sequence[str], together: TreeLimits = UNLIMITED) -> None:
        self._folder = folder.resolve()  # it is in the marks, too
        self._daemon_lock = daemon_lock
        self._wake = list(wake)
        self._together = together
        self._threads = CapacityLimiter(40)
        self._enders = CapacityLimiter(40)  # those take seconds: nobody is to wait for them

    def _at(self, handle: str) -> Path:
        assert _HANDLE.fullmatch(handle), handle
        return self._folder / handle

    async def _do(self, act: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        return await to_thread.run_sync(act, *arguments, limiter=self._threads)

    async def submit(self, spec: AttemptSpec) -> None:
        await self._do(self._submit, spec)

    def _submit(self, spec: AttemptSpec) -> None:
        folder = self._at(spec.handle)
        folder.mkdir(mode=0o700, exist_ok=True)
        taken = lock.take(folder / "lock")
        if taken is None:
            return  # a shim has it already
        try:
            if not any((folder / name).exists() for name in ("started.json", "cancel")):
                _write_orders(folder, spec, self._together, {"daemon_lock": str(self._daemon_lock), "wake": self._wake})
                shims.start(folder, taken, {**spec.environment, process.MARK: _mark(folder)})
        finally:
            os.close(taken)

    async def send(self, handle: str, data: bytes) -> None:
        await self._do(_append, self._at(handle) / "input", data)
        await self._do(_poke, self._at(handle))

    async def close_input(self, handle: str) -> None:
        await self._do(_write, self._at(handle) / "input.end", b"")
        await self._do(_poke, self._at(handle))

    async def output(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        folder = self._at(handle)
        pause = _SOONEST_S
        while True:
            live = await self._do(lock.is_held, folder / "lock")  # asked before the read that finds no more
            chunk = await self._do(_read_on, folder / "output", after)
            if chunk:
                after += len(chunk)
                pause = _SOONEST_S
                yield chunk
            elif live:
                await self._ended_within(folder, pause)
                pause = min(pause * 1.5, _LATEST_S)
            else:
                return

    async def read_output(self, handle: str, start: int, limit: int, *, errors: bool = False) -> Page:
        return await self._do(_read_page, self._at(handle) / ("errors" if errors else "output"), start, limit)

    async def release(self, handle: str, offset: int) -> None:
        if offset > log.STEP:  # before that nothing is ever dropped
            await self._do(_release, self._at(handle), offset)

    async def outcome(self, handle: str) -> Outcome:
        folder = self._at(handle)
        while await self._do(lock.is_held, folder / "lock"):
            await self._ended_within(folder, 1.0)
        await self._do(shims.reap, folder)
        return await self._do(_read_outcome, folder)

    async def _ended_within(self, folder: Path, seconds: float) -> None:
        """Return when the shim ends, but after `seconds` at the latest."""
        handle = await self._do(_open_shim, folder)
        if handle is None:  # it is about to come up, or to go
            await anyio.sleep(_SOONEST_S)
            return
        try:
            with anyio.move_on_after(seconds):
                await anyio.wait_readable(handle)
        finally:
            os.close(handle)

    async def cancel(self, handle: str, grace: float) -> list[str]:
        folder = self._at(handle)
        asked = await self._do(_ask_to_end, folder, grace)
        if asked:
            with anyio.move_on_after(grace + _SHIM_WAIT_S):
                await self.outcome(handle)
        left = await to_thread.run_sync(_end_tree, folder, 0 if asked else grace, limiter=self._enders)
        if not left:
            await self.outcome(handle)
        return left

    async def freeze(self, handle: str) -> None:
        await to_thread.run_sync(_freeze, self._at(handle), limiter=self._enders)

    async def thaw(self, handle: str) -> None:
        await self._do(_thaw, self._at(handle))

    async def forget(self, handle: str) -> None:
        await self._do(_forget, self._at(handle))

    async def handles(self) -> list[str]:
        return [name for name in await self._do(os.listdir, self._folder) if _HANDLE.fullmatch(name)]

    async def watch(self) -> None:
        limits = in_all.to_watch(self._together, groups.find_bases())
        known: list[Path] | None = None
        while limits != UNLIMITED:
            with contextlib.suppress(OSError):  # no room to leave word, or no descriptor to look; it is tried again
                if known is None:  # those that another daemon has left
                    known = [self._at(handle) for handle in await self.handles()]
                live = await self._do(_find_live, [*known, *shims.started(self._folder)])
                known = [*live]
                await self._do(in_all.end_largest, live, limits)
            await anyio.sleep(in_all.LOOK_EVERY_S)

    async def taken(self, handles: Iterable[str]) -> dict[str, int]:
        return await self._do(_taken, [self._at(handle) for handle in handles])

    async def capacity(self) -> Capacity:
        return await self._do(_capacity)


def _capacity() -> Capacity:
    memory, (limit, left) = psutil.virtual_memory(), hierarchy.memory_bounds()
    total, free = int(min(memory.total, limit)), int(min(memory.available, left))
    return Capacity(os.cpu_count() or 1, total, free, os.getloadavg()[0])


def _taken(folders: Iterable[Path]) -> dict[str, int]:
    return {folder.name: usage.of_tree(pid).memory for folder, pid in _find_live(folders).items()}


def _forget(folder: Path) -> None:
    groups.remove(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _write_orders(folder: Path, spec: AttemptSpec, together: TreeLimits, daemon: dict[str, object]) -> None:
    """Put on disk all that the shim reads, except the environment."""
    for stale in ("about.json", "input", "input.end", "over", "poke"):
        (folder / stale).unlink(missing_ok=True)
    os.mkfifo(folder / "poke", 0o600)
    _append(folder / "input", spec.input)
    if spec.closed:
        _write(folder / "input.end", b"")
    orders = {
        "argv": spec.argv,
        "cwd": spec.cwd,
        "mark": _mark(folder),
        "timeout_s": spec.timeout_s,
        "together": spec.together,
        "silence_s": spec.silence_s,
        "log_bytes": spec.log_bytes,
        "keeps_unread": spec.keeps_unread,
        "open_files": open_files.GIVEN,
        "limits": asdict(spec.limits),
        "in_all": asdict(together),
        **groups.order(folder, spec.limits, together),
        **daemon,
    }
    _append(folder / "about.json", json.dumps(dict(spec.about)).encode())
    _write(folder / "full.json", _OUTCOME.dump_json(_FULL))
    _write(folder / "spec.json", json.dumps(orders).encode())


def _mark(folder: Path) -> str:
    """What marks an attempt's processes: no other has its folder, and it is known whatever became of the files."""
    return str(folder)


def _write(file: Path, data: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(data)


def _append(file: Path, data: bytes) -> None:
    """Append all of it, on disk, or nothing."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        size = os.fstat(opened.fileno()).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[opened.write(rest) :]
            os.fdatasync(opened.fileno())
        except OSError:
            opened.truncate(size)
            raise


def _poke(folder: Path) -> None:
    """Tell the shim to look; where none reads the fifo (ENXIO), there is nobody to tell."""
    with contextlib.suppress(OSError):
        fifo = os.open(folder / "poke", os.O_WRONLY | os.O_NONBLOCK)
        with os.fdopen(fifo, "wb", buffering=0) as opened:
            opened.write(b"!")


def _read_on(file: Path, start: int) -> bytes:
    try:
        with file.open("rb") as opened:
            return os.pread(opened.fileno(), _CHUNK, start)
    except FileNotFoundError:
        return b""


def _read_page(file: Path, start: int, limit: int) -> Page:
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            begin, data = log.read(opened.fileno(), start if start >= 0 else max(0, size + start), limit)
            return Page(data, begin, size)
    except FileNotFoundError:
        return Page(b"", 0, 0)


def _release(folder: Path, offset: int) -> None:
    """Note how far the output was read, for the shim; where that has ended, do what it would have done."""
    with contextlib.suppress(OSError):  # then it is shortened later, or stays long
        _write(folder / "released", str(offset).encode())
        orders = _read_record(folder / "spec.json", _ORDERS)
        if orders and not lock.is_held(folder / "lock"):
            with (folder / "output").open("r+b") as opened:
                log.shorten(opened.fileno(), orders.log_bytes, offset)


def _read_record(file: Path, kind: TypeAdapter[_T]) -> _T | None:
    """What a record says; nothing where it is missing or damaged."""
    try:
        return kind.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _read_outcome(folder: Path) -> Outcome:
    if end := _read_record(folder / "end.json", _OUTCOME):
        return end
    if (folder / "started.json").exists():
        return Outcome("lost")
    if (folder / "cancel").exists():
        return Outcome("not_started", error="it was stopped before it started")
    return Outcome("not_started", error="its supervisor did not come up (see shim.log in its folder)", passing=True)


def _read_shim(folder: Path) -> process.Identity | None:
    """Who the shim is, or was."""
    return _read_record(folder / "started.json", _IDENTITY)


def _open_shim(folder: Path) -> int | None:
    owner = _read_shim(folder)
    return owner and process.open_handle(owner)


def _find_live(folders: Iterable[Path]) -> dict[Path, int]:
    """The pids of their shims, of those that are there."""
    live: dict[Path, int] = {}
    for folder in folders:
        with contextlib.suppress(OSError):  # one that can't be looked at keeps nobody from looking at the others
            if lock.is_held(folder / "lock") and (owner := _read_shim(folder)):
                live[folder] = owner.pid
    return live


def _ask_to_end(folder: Path, grace: float) -> bool:
    """Leave word that the attempt is to end, for its shim or for whoever would start one; whether a shim has it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):
        _write(folder / "cancel.new", str(grace).encode())
    with contextlib.suppress(OSError):  # where the disk is full there is an empty one, or its tree is ended without
        (folder / "cancel.new").replace(folder / "cancel")
    if owner := _read_shim(folder):
        process.send(owner, signal.SIGCONT)  # its own program may have stopped it
    _poke(folder)
    return lock.is_held(folder / "lock")


def _freeze(folder: Path) -> None:
    give_up, pause = time.monotonic() + process.KILL_WAIT_S, _SOONEST_S
    while lock.is_held(folder / "lock"):
        _write(folder / "frozen", b"")
        if process.stop(_finder(folder)):
            return
        if time.monotonic() > give_up:
            raise TimeoutError(f"nothing of {folder.name} is there to be stopped")
        time.sleep(pause)  # its program is about to come up, or its shim to go
        pause = min(pause * 1.5, _LATEST_S)


def _thaw(folder: Path) -> None:
    if (folder / "frozen").exists():
        for entry in _finder(folder)():
            process.send(entry.identity, signal.SIGCONT)
        (folder / "frozen").unlink(missing_ok=True)


def _finder(folder: Path) -> Callable[[], list[process.Entry]]:
    """What finds the processes of an attempt, time and again."""
    mark, group, owner = _mark(folder), next(iter(groups.find(folder)), None), _read_shim(folder)
    return lambda: process.tree(mark, owner, group)


def _end_tree(folder: Path, grace: float) -> list[str]:
    """End what a shim has not, and then the shim, if it is still there; what could not be ended."""
    owner = _read_shim(folder)
    left = process.end(_finder(folder), grace)
    if not left:
        left = process.end(lambda: [entry for entry in process.table() if entry.identity == owner], 0)
    groups.remove(folder)
    return [str(entry) for entry in left]
