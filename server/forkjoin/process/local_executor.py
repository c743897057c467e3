"""The executor for this machine: each attempt is a folder and a shim.

An attempt is alive while its lock is held. The daemon and the shim hold it together from before the fork, so a process
that can take the lock knows that neither is alive. That leaves no doubt after a crash between any two steps: if the
lock is free, a missing started.json means that nothing was started, and a missing end.json that the attempt is lost.
The files are described in `shim`.
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
from forkjoin.core.error import describe_error, is_transient
from forkjoin.core.outcome import Outcome
from forkjoin.core.tree_limits import UNLIMITED, TreeLimits
from forkjoin.process import (
    attempt_cgroups,
    attempt_log,
    attempt_processes,
    capacity,
    process_owner,
    resource_limits,
    shim_control,
    shim_watchdog,
    usage,
)
from forkjoin.process.executor import AttemptSpec, Capacity, Page

logger = logging.getLogger(__name__)

_CHUNK = 256 * 1024
#: Pause between two reads of a program's output: short while it prints, longer the longer it is silent.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.4
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")
#: The end of an attempt for which the disk was too full to write end.json. The output may be incomplete too, so that
#: the attempt's true end can't be known.
_DISK_FULL = Outcome("lost", error="the disk was full when it ended")

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class LocalExecutor:
    """The executor that runs attempts in subfolders of `folder`.

    Args:
        daemon_lock: The lock that a daemon holds while it is alive.
        daemon_argv: The command with which a shim starts a daemon if none is alive.
        total_limits: The limits of all attempts together.
    """

    def __init__(
        self, folder: Path, daemon_lock: Path, daemon_argv: Sequence[str], total_limits: TreeLimits = UNLIMITED
    ) -> None:
        self._folder = folder.resolve()  # marks contain the path, so that there must be only one spelling
        self._daemon_lock = daemon_lock
        self._daemon_argv = list(daemon_argv)
        self._total_limits = total_limits
        self._threads = CapacityLimiter(40)
        self._slow_threads = CapacityLimiter(40)  # for calls that take seconds, so that they delay no others

    def _folder_of(self, handle: str) -> Path:
        assert _HANDLE.fullmatch(handle), handle
        return self._folder / handle

    async def _run(self, function: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)

    async def _run_slow(self, function: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        return await to_thread.run_sync(function, *arguments, limiter=self._slow_threads)

    async def submit(self, spec: AttemptSpec) -> None:
        await self._run(self._submit, spec)

    def _submit(self, spec: AttemptSpec) -> None:
        folder = self._folder_of(spec.handle)
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = file_lock.take(folder / "lock")
        if lock is None:
            return  # a shim runs the attempt
        try:
            if not any((folder / name).exists() for name in ("started.json", "cancel")):
                daemon: dict[str, object] = {"daemon_lock": str(self._daemon_lock), "wake": self._daemon_argv}
                _write_shim_files(folder, spec, self._total_limits, daemon)
                shim_control.start(folder, lock, spec.environment)
        finally:
            os.close(lock)

    async def send(self, handle: str, data: bytes, *, once: bool = False) -> bool:
        is_on_disk = await self._run(_append, self._folder_of(handle) / "input", data, once)
        await self._run(shim_control.poke, self._folder_of(handle))
        return is_on_disk

    async def close_input(self, handle: str) -> None:
        await self._run(_close_input, self._folder_of(handle) / "input")
        await self._run(shim_control.poke, self._folder_of(handle))

    async def output(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        folder = self._folder_of(handle)
        pause = _SHORTEST_PAUSE_S
        while True:
            is_live = await self._run(file_lock.is_held, folder / "lock")  # before the read that finds no more bytes
            chunk = await self._run(_read_chunk, folder / "output", after)
            if chunk:
                after += len(chunk)
                pause = _SHORTEST_PAUSE_S
                yield chunk
            elif is_live:
                await self._wait_for_shim(folder, pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_S)
            else:
                return

    async def read_output(self, handle: str, start: int, limit: int, *, errors: bool = False) -> Page:
        return await self._run(_read_page, self._folder_of(handle) / ("errors" if errors else "output"), start, limit)

    async def release_output(self, handle: str, offset: int) -> None:
        if offset > attempt_log.STEP:  # the first bytes are never dropped
            await self._run(_release_output, self._folder_of(handle), offset)

    async def outcome(self, handle: str) -> Outcome:
        folder = self._folder_of(handle)
        while await self._run(file_lock.is_held, folder / "lock"):
            await self._wait_for_shim(folder, 1.0)
        await self._run(shim_control.reap, folder)
        return await self._run(_read_outcome, folder)

    async def _wait_for_shim(self, folder: Path, seconds: float) -> None:
        """Wait until the shim ends, for `seconds` at most."""
        pidfd = await self._run(shim_control.open_pidfd, folder)
        if pidfd is None:  # the shim is about to come up, or to exit
            await anyio.sleep(_SHORTEST_PAUSE_S)
            return
        try:
            with anyio.move_on_after(seconds):
                await anyio.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    async def cancel(self, handle: str, grace: float) -> list[str]:
        folder = self._folder_of(handle)
        has_shim = await self._run(shim_control.ask_to_end, folder, grace)
        if has_shim:
            with anyio.move_on_after(grace + shim_control.WAIT_S):
                await self.outcome(handle)
        survivors = await self._run_slow(shim_control.terminate_tree, folder, 0 if has_shim else grace)
        if not survivors:
            await self.outcome(handle)
        return survivors

    async def mark_variables(self, handle: str) -> dict[str, str]:
        await self._run(os.makedirs, folder := self._folder_of(handle), 0o700, True)
        return {attempt_processes.MARK: str(folder)}

    async def freeze(self, handle: str) -> None:
        await self._run_slow(shim_control.freeze, self._folder_of(handle))

    async def thaw(self, handle: str) -> None:
        await self._run(shim_control.thaw, self._folder_of(handle))

    async def pause_silence_limit(self, handle: str) -> None:
        await self._run(shim_control.pause_silence_limit, self._folder_of(handle))

    async def forget(self, handle: str) -> None:
        await self._run(_remove_folder, self._folder_of(handle))

    async def find_owner(self, pid: int) -> str | None:
        return await self._run(process_owner.find_owner, self._folder, pid)

    async def list_handles(self) -> list[str]:
        return [name for name in await self._run(os.listdir, self._folder) if _HANDLE.fullmatch(name)]

    async def enforce_limits(self) -> None:
        roots = attempt_cgroups.find_cgroup_roots()
        watchdog = shim_watchdog.ShimWatchdog(shim_watchdog.limits_to_measure(self._total_limits, roots))
        live: list[Path] | None = None
        while True:
            try:
                if live is None:  # the first check includes attempts that an earlier daemon has started
                    live = [self._folder_of(handle) for handle in await self.list_handles()]
                live = await self._run_slow(watchdog.check, [*live, *shim_control.list_started(self._folder)])
            except Exception as error:  # a boundary: the disk is full, or no thread can be started
                log = logger.error if is_transient(error) else logger.exception
                log("Can't check the limits of all attempts, trying again: %s", describe_error(error))
            await anyio.sleep(shim_watchdog.CHECK_EVERY_S)

    async def measure_memory(self, handles: Iterable[str]) -> dict[str, int]:
        return await self._run(_measure_memory, [self._folder_of(handle) for handle in handles])

    async def capacity(self) -> Capacity:
        return await self._run(capacity.measure_capacity)


def _measure_memory(folders: Iterable[Path]) -> dict[str, int]:
    return {
        folder.name: usage.measure_tree(shim.pid, str(folder)).memory
        for folder, shim in shim_control.find_live(folders).items()
    }


def _remove_folder(folder: Path) -> None:
    attempt_cgroups.remove_cgroups_of(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _write_shim_files(folder: Path, spec: AttemptSpec, total_limits: TreeLimits, daemon: dict[str, object]) -> None:
    """Write all files that the shim reads. The environment is not among them."""
    for stale in ("about.json", "input", "input.end", "over", "poke"):
        (folder / stale).unlink(missing_ok=True)
    os.mkfifo(folder / "poke", 0o600)
    _append(folder / "input", spec.input)
    if spec.input_complete:
        write_atomically(folder / "input.end", b"")
    shim_spec = {
        "argv": spec.argv,
        "cwd": spec.cwd,
        "timeout_s": spec.timeout_s,
        "together": spec.stderr_to_stdout,
        "silence_s": spec.silence_s,
        "log_bytes": spec.log_bytes,
        "keeps_unread": spec.keep_unread_output,
        "mark": str(folder),  # unique, and known even if all files are lost
        "open_files": resource_limits.INHERITED_OPEN_FILES,
        "limits": asdict(spec.limits),
        "in_all": asdict(total_limits),
        **attempt_cgroups.plan(folder, spec.limits, total_limits),
        **daemon,
    }
    _append(folder / "about.json", json.dumps(dict(spec.about)).encode())
    write_atomically(folder / "full.json", shim_control.OUTCOME.dump_json(_DISK_FULL, by_alias=True))
    write_atomically(folder / "spec.json", json.dumps(shim_spec).encode())


def _append(file: Path, data: bytes, once: bool = False) -> bool:
    """Append all of the data durably, or raise OSError and append nothing.

    Returns `False` if the file was closed for appending.

    Args:
        once: Whether to do nothing if the file already contains the data.
    """
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


def _close_input(file: Path) -> None:
    """Close a file for appending."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        write_atomically(file.with_name(f"{file.name}.end"), b"")


def _read_chunk(file: Path, start: int) -> bytes:
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


def _release_output(folder: Path, offset: int) -> None:
    """Tell the shim up to which offset the output was read.

    If the shim has ended, shorten the output here.
    """
    with contextlib.suppress(OSError, ValueError, LookupError):  # a later call shortens the output
        write_atomically(folder / "released", str(offset).encode())
        if not file_lock.is_held(folder / "lock"):
            limit = json.loads((folder / "spec.json").read_bytes())["log_bytes"]
            with (folder / "output").open("r+b") as opened:
                attempt_log.shorten(opened.fileno(), limit, offset)


def _read_outcome(folder: Path) -> Outcome:
    if end := shim_control.read_record(folder / "end.json", shim_control.OUTCOME):
        return end
    if (folder / "started.json").exists():
        return Outcome("lost")
    if (folder / "cancel").exists():
        return Outcome("not_started", error="it was stopped before it started")
    return Outcome(
        "not_started", error="its supervisor did not come up (see shim.log in its folder)", is_transient=True
    )
