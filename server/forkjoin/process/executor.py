"""The executor, which runs attempts on this machine: each attempt is a folder and a shim.

An attempt is alive while its lock is held. The daemon and the shim share the lock from before the fork, so a process
that can take the lock knows that the shim is not alive, and that no daemon is about to start one. Then a missing
started.json means that no program was started, and a missing end.json that the attempt is lost. So a crash between any
two steps leaves no doubt. `shim` describes the files.
"""

import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, TypeVarTuple

import anyio
from anyio import CapacityLimiter, to_thread

from forkjoin.core import file_lock
from forkjoin.core.error import describe_error, is_transient
from forkjoin.core.outcome import Outcome
from forkjoin.core.tree_limits import UNLIMITED, TreeLimits
from forkjoin.process import (
    attempt_cgroups,
    attempt_files,
    attempt_log,
    attempt_processes,
    capacity,
    process_owner,
    shim_control,
    shim_watchdog,
    usage,
)
from forkjoin.process.attempt_files import Page
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.capacity import Capacity

logger = logging.getLogger(__name__)

#: Pause between two reads of a program's output: the shortest while it prints, longer the longer it is silent.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.4
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


#: Bytes before the end of an output in which `read_tail` looks for the beginning of a secret that is cut in two.
_SECRET_BYTES = 8 * 1024


class Executor:
    """Starts, feeds, observes and ends the attempts of one home on this machine.

    A handle is the name of an attempt: lower-case letters, digits and `-`. The caller chooses it, and records it
    before `submit`, so that the next daemon finds the attempt after a crash.

    Args:
        folder: The folder that has a subfolder for each attempt.
        daemon_lock: The lock that a daemon holds while it is alive.
        daemon_argv: The command with which a shim starts a daemon if none is alive.
        total_limits: The limits of all attempts together.
    """

    def __init__(
        self, folder: Path, daemon_lock: Path, daemon_argv: Sequence[str], total_limits: TreeLimits = UNLIMITED
    ) -> None:
        self._folder = folder.resolve()  # marks are compared as text and contain the path, so it needs one spelling
        self._daemon_lock = daemon_lock
        self._daemon_argv = list(daemon_argv)
        self._total_limits = total_limits
        self._threads = CapacityLimiter(40)
        self._slow_threads = CapacityLimiter(40)  # for calls that take seconds, so that others don't wait

    def _folder_of(self, handle: str) -> Path:
        assert _HANDLE.fullmatch(handle), handle
        return self._folder / handle

    async def _run(self, function: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)

    async def _run_slow(self, function: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        return await to_thread.run_sync(function, *arguments, limiter=self._slow_threads)

    async def submit(self, spec: AttemptSpec) -> None:
        """Start an attempt, unless its handle was started or cancelled before.

        Returns once the input is on disk and a shim was started. If the program can't be started, `outcome` says why.

        Raises:
            OSError: There is no space, or no process can be started. The attempt may be submitted again.
            ValueError: The environment contains a variable that can't be passed to a program.
        """
        await self._run(self._submit, spec)

    def _submit(self, spec: AttemptSpec) -> None:
        folder = self._folder_of(spec.handle)
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = file_lock.take(folder / "lock")
        if lock is None:
            return  # the shim of an earlier call holds the lock
        try:
            if not any((folder / name).exists() for name in ("started.json", "cancel")):
                daemon: dict[str, object] = {"daemon_lock": str(self._daemon_lock), "wake": self._daemon_argv}
                attempt_files.write_shim_files(folder, spec, self._total_limits, daemon)
                shim_control.start(folder, lock, spec.environment)
        finally:
            os.close(lock)

    async def send(self, handle: str, data: bytes, *, once: bool = False) -> bool:
        """Append data to a program's input. Return whether the data is on disk.

        Return `False` if the input was closed before. Nothing is appended then.

        Args:
            once: Whether to append nothing, and return `True`, if the input already contains the data.

        Raises:
            OSError: There is no space. No part of the data was appended.
        """
        is_on_disk = await self._run(attempt_files.append_input, self._folder_of(handle) / "input", data, once)
        await self._run(shim_control.poke, self._folder_of(handle))
        return is_on_disk

    async def close_input(self, handle: str) -> None:
        """Close a program's stdin once it has read all data that was sent. Idempotent."""
        await self._run(attempt_files.close_input, self._folder_of(handle) / "input")
        await self._run(shim_control.poke, self._folder_of(handle))

    async def output(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        """Yield a program's output from offset `after` on, until the attempt has ended.

        Zeros stand for bytes that were dropped from the log.
        """
        folder = self._folder_of(handle)
        pause = _SHORTEST_PAUSE_S
        while True:
            # Checked before each read, so that the read after the attempt's end finds the last bytes.
            is_live = await self._run(file_lock.is_held, folder / "lock")
            chunk = await self._run(attempt_files.read_chunk, folder / "output", after)
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
        """Return at most `limit` bytes of output from offset `start` on.

        If bytes were dropped at `start`, the page begins after them. It ends where the next dropped bytes begin.

        Args:
            start: If negative, it counts from the end of the output.
            errors: Whether to read stderr instead of stdout.
        """
        return await self._run(
            attempt_files.read_page, self._folder_of(handle) / ("errors" if errors else "output"), start, limit
        )

    async def release_output(self, handle: str, offset: int) -> None:
        """Permit the shim to drop output before `offset`. The daemon has read it."""
        if offset > attempt_log.STEP:  # up to there, nothing is ever dropped
            await self._run(attempt_files.release_output, self._folder_of(handle), offset)

    async def outcome(self, handle: str) -> Outcome:
        """Wait until the attempt has ended. Return how it ended.

        The outcome's kind is `lost` if the program was started, but its shim died and left no end record.
        """
        folder = self._folder_of(handle)
        while await self._run(file_lock.is_held, folder / "lock"):
            await self._wait_for_shim(folder, 1.0)
        await self._run(shim_control.reap, folder)
        return await self._run(attempt_files.read_outcome, folder)

    async def _wait_for_shim(self, folder: Path, seconds: float) -> None:
        """Return when the shim has ended, or after `seconds`."""
        pidfd = await self._run(shim_control.open_shim, folder)
        if pidfd is None:  # the shim has not written started.json yet, or has just exited
            await anyio.sleep(_SHORTEST_PAUSE_S)
            return
        try:
            with anyio.move_on_after(seconds):
                await anyio.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    async def cancel(self, handle: str, grace: float) -> list[str]:
        """End all processes of an attempt, or keep it from ever being started. Idempotent.

        Args:
            grace: Seconds from SIGTERM to SIGKILL.

        Returns:
            Names and pids of the processes that could not be ended. An empty list means success.
        """
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
        """Return the environment variables that make a process part of an attempt.

        They are for a process that a person's command starts, not a shim. The attempt's folder is made, so that
        `cancel` finds the process and ends it.
        """
        await self._run(os.makedirs, folder := self._folder_of(handle), 0o700, True)
        return {attempt_processes.MARK: str(folder)}

    async def freeze(self, handle: str) -> None:
        """Stop all processes of an attempt, and its time limits. Idempotent.

        If the attempt has ended, nothing happens.

        Raises:
            OSError: There is no space, or the program does not come up within seconds. The attempt goes on.
        """
        await self._run_slow(shim_control.freeze, self._folder_of(handle))

    async def thaw(self, handle: str) -> None:
        """Resume all processes and all time limits of an attempt. Idempotent.

        This also ends what `pause_silence_limit` began.
        """
        await self._run(shim_control.thaw, self._folder_of(handle))

    async def pause_silence_limit(self, handle: str) -> None:
        """Suspend the attempt's silence limit until `thaw` is called. Idempotent.

        It is for a program that waits for an answer, and therefore prints nothing.
        """
        await self._run(shim_control.pause_silence_limit, self._folder_of(handle))

    async def forget(self, handle: str) -> None:
        """Remove the files and cgroups of an attempt that has ended."""
        await self._run(_remove_folder, self._folder_of(handle))

    async def find_owner(self, pid: int) -> str | None:
        """Return the handle of the attempt to which a process belongs.

        Return `None` if the process belongs to no attempt.

        Raises:
            CallerError: The process has ended, is not visible from here, or was started by this daemon itself.
        """
        return await self._run(process_owner.find_owner, self._folder, pid)

    async def list_handles(self) -> list[str]:
        """Return the handles of all attempts whose files were not removed."""
        return [name for name in await self._run(os.listdir, self._folder) if _HANDLE.fullmatch(name)]

    async def enforce_limits(self) -> None:
        """Run the shim watchdog until cancelled. It enforces what a shim alone can't."""
        roots = attempt_cgroups.find_cgroup_roots()
        watchdog = shim_watchdog.ShimWatchdog(shim_watchdog.limits_to_measure(self._total_limits, roots))
        live: list[Path] | None = None
        while True:
            try:
                if live is None:  # the first pass finds the attempts that an earlier daemon has started
                    live = [self._folder_of(handle) for handle in await self.list_handles()]
                live = await self._run_slow(watchdog.check, [*live, *shim_control.list_started(self._folder)])
            except Exception as error:  # a boundary: a full disk, for example, must not end the watchdog
                log = logger.error if is_transient(error) else logger.exception
                log("Can't check the limits of all attempts, trying again: %s", describe_error(error))
            await anyio.sleep(shim_watchdog.CHECK_EVERY_S)

    async def measure_memory(self, handles: Iterable[str]) -> dict[str, int]:
        """Return the bytes of memory that each of these attempts uses.

        Attempts without a live shim are left out.
        """
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


class OutputTail(NamedTuple):
    """The result of `read_tail`."""

    text: str
    omitted: int  #: bytes of output before `text`


async def read_tail(
    executor: Executor,
    handle: str,
    limit: int,
    redact_end: Callable[[str, str], str],
    *,
    errors: bool = False,
    whole_lines: bool = False,
) -> OutputTail:
    """Return the end of a program's output, `limit` bytes at most, without secrets.

    Args:
        redact_end: Returns its second argument without secrets. The first argument is the text before it, where a
            secret may begin.
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
