"""Attempts on this machine: a folder and a shim each.

Whether an attempt lives is asked of its lock, which daemon and shim hold together from before the fork: whoever can
take it knows that neither is there. So a daemon that died between any two steps leaves no doubt behind: no lock and
no started.json means that nothing was started, no lock and no end.json that it was lost. What the files are is told
in shim.py.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import anyio
from anyio import CapacityLimiter, to_thread

from forkjoin.core import file_lock
from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.error import is_passing, words_of
from forkjoin.core.model import UNLIMITED, Outcome, TreeLimits
from forkjoin.process import (
    attempt_cgroups,
    attempt_log,
    capacity,
    process_owner,
    process_tree,
    resource_limits,
    shim_control,
    supervisor,
    usage,
)
from forkjoin.process.executor import AttemptSpec, Capacity, Page

logger = logging.getLogger(__name__)

_CHUNK = 256 * 1024
#: How soon output is looked for again: at once while it flows, more seldom the longer it is silent.
_SOONEST_S, _LATEST_S = 0.02, 0.4
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")
#: What there is when the disk is too full to write how an attempt ended. Its output may have been cut by then, too,
#: so that no end but this one would be true.
_FULL = Outcome("lost", error="the disk was full when it ended")

#: What of a spec a shim is told in spec.json as it is.
_TOLD = ("argv", "cwd", "timeout_s", "together", "silence_s", "log_bytes", "keeps_unread")

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


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
        taken = file_lock.take(folder / "lock")
        if taken is None:
            return  # a shim has it already
        try:
            if not any((folder / name).exists() for name in ("started.json", "cancel")):
                _write_orders(folder, spec, self._together, {"daemon_lock": str(self._daemon_lock), "wake": self._wake})
                shim_control.start(folder, taken, spec.environment)
        finally:
            os.close(taken)

    async def send(self, handle: str, data: bytes, *, once: bool = False) -> bool:
        taken = await self._do(_append, self._at(handle) / "input", data, once)
        await self._do(shim_control.poke, self._at(handle))
        return taken

    async def close_input(self, handle: str) -> None:
        await self._do(_close, self._at(handle) / "input")
        await self._do(shim_control.poke, self._at(handle))

    async def output(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        folder = self._at(handle)
        pause = _SOONEST_S
        while True:
            live = await self._do(file_lock.is_held, folder / "lock")  # asked before the read that finds no more
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
        if offset > attempt_log.STEP:  # before that nothing is ever dropped
            await self._do(_release, self._at(handle), offset)

    async def outcome(self, handle: str) -> Outcome:
        folder = self._at(handle)
        while await self._do(file_lock.is_held, folder / "lock"):
            await self._ended_within(folder, 1.0)
        await self._do(shim_control.reap, folder)
        return await self._do(_read_outcome, folder)

    async def _ended_within(self, folder: Path, seconds: float) -> None:
        """Return when the shim ends, but after `seconds` at the latest."""
        handle = await self._do(shim_control.open_handle, folder)
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
        asked = await self._do(shim_control.ask_to_end, folder, grace)
        if asked:
            with anyio.move_on_after(grace + shim_control.WAIT_S):
                await self.outcome(handle)
        left = await to_thread.run_sync(shim_control.end_tree, folder, 0 if asked else grace, limiter=self._enders)
        if not left:
            await self.outcome(handle)
        return left

    async def mark(self, handle: str) -> dict[str, str]:
        await self._do(os.makedirs, folder := self._at(handle), 0o700, True)
        return {process_tree.MARK: str(folder)}

    async def freeze(self, handle: str) -> None:
        await to_thread.run_sync(shim_control.freeze, self._at(handle), limiter=self._enders)

    async def thaw(self, handle: str) -> None:
        await self._do(shim_control.thaw, self._at(handle))

    async def excuse(self, handle: str) -> None:
        await self._do(shim_control.excuse, self._at(handle))

    async def forget(self, handle: str) -> None:
        await self._do(_forget, self._at(handle))

    async def find_owner(self, pid: int) -> str | None:
        return await self._do(process_owner.find_owner, self._folder, pid)

    async def handles(self) -> list[str]:
        return [name for name in await self._do(os.listdir, self._folder) if _HANDLE.fullmatch(name)]

    async def watch(self) -> None:
        watchman = supervisor.Guard(supervisor.to_watch(self._together, attempt_cgroups.find_bases()))
        known: list[Path] | None = None
        while True:
            try:
                if known is None:  # those that another daemon has left
                    known = [self._at(handle) for handle in await self.handles()]
                found = [*known, *shim_control.started(self._folder)]
                known = await to_thread.run_sync(watchman.look, found, limiter=self._enders)
            except Exception as error:  # a boundary: no room to leave word, no thread to look in; it is tried again
                tell = logger.error if is_passing(error) else logger.exception
                tell("who takes too much could not be looked for; trying again: %s", words_of(error))
            await anyio.sleep(supervisor.LOOK_EVERY_S)

    async def taken(self, handles: Iterable[str]) -> dict[str, int]:
        return await self._do(_taken, [self._at(handle) for handle in handles])

    async def capacity(self) -> Capacity:
        return await self._do(capacity.find)


def _taken(folders: Iterable[Path]) -> dict[str, int]:
    return {
        folder.name: usage.of_tree(shim.pid, str(folder)).memory
        for folder, shim in shim_control.find_live(folders).items()
    }


def _forget(folder: Path) -> None:
    attempt_cgroups.remove(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _write_orders(folder: Path, spec: AttemptSpec, together: TreeLimits, daemon: dict[str, object]) -> None:
    """Put on disk all that the shim reads, except the environment."""
    for stale in ("about.json", "input", "input.end", "over", "poke"):
        (folder / stale).unlink(missing_ok=True)
    os.mkfifo(folder / "poke", 0o600)
    _append(folder / "input", spec.input)
    if spec.closed:
        write_atomically(folder / "input.end", b"")
    orders = {
        **{name: getattr(spec, name) for name in _TOLD},
        "mark": str(folder),  # what no other has, and what is known whatever became of the files
        "open_files": resource_limits.OPEN_FILES,
        "limits": asdict(spec.limits),
        "in_all": asdict(together),
        **attempt_cgroups.order(folder, spec.limits, together),
        **daemon,
    }
    _append(folder / "about.json", json.dumps(dict(spec.about)).encode())
    write_atomically(folder / "full.json", shim_control.OUTCOME.dump_json(_FULL))
    write_atomically(folder / "spec.json", json.dumps(orders).encode())


def _append(file: Path, data: bytes, once: bool = False) -> bool:
    """Append all of it, on disk, or nothing, unless that is closed, or, `once`, has it; whether it is there."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        if once and data in opened.read():
            return True
        if file.with_name(f"{file.name}.end").exists():
            return False
        size = os.fstat(opened.fileno()).st_size
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[opened.write(rest) :]
            os.fdatasync(opened.fileno())
        except OSError:
            opened.truncate(size)
            raise
        return True


def _close(file: Path) -> None:
    """Let nothing be appended any more."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        write_atomically(file.with_name(f"{file.name}.end"), b"")


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
            begin, data = attempt_log.read(opened.fileno(), start if start >= 0 else max(0, size + start), limit)
            return Page(data, begin, size)
    except FileNotFoundError:
        return Page(b"", 0, 0)


def _release(folder: Path, offset: int) -> None:
    """Note how far the output was read, for the shim; where that has ended, do what it would have done."""
    with contextlib.suppress(OSError, ValueError, LookupError):  # then it is shortened later, or stays long
        write_atomically(folder / "released", str(offset).encode())
        if not file_lock.is_held(folder / "lock"):
            with (folder / "output").open("r+b") as opened:
                attempt_log.shorten(
                    opened.fileno(), json.loads((folder / "spec.json").read_bytes())["log_bytes"], offset
                )


def _read_outcome(folder: Path) -> Outcome:
    if end := shim_control.read_record(folder / "end.json", shim_control.OUTCOME):
        return end
    if (folder / "started.json").exists():
        return Outcome("lost")
    if (folder / "cancel").exists():
        return Outcome("not_started", error="it was stopped before it started")
    return Outcome("not_started", error="its supervisor did not come up (see shim.log in its folder)", passing=True)
