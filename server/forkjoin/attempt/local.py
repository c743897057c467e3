"""Attempts on this machine: a folder and a shim each.

Whether an attempt lives is asked of its lock, which daemon and shim hold together from before the fork: whoever can
take it knows that neither is there. So a daemon that died between any two steps leaves no doubt behind: no lock and
no started.json means that nothing was started, no lock and no end.json that it was lost.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import psutil
from anyio import to_thread

from forkjoin.attempt import process, shim
from forkjoin.attempt.executor import AttemptSpec, Capacity
from forkjoin.model import Outcome

_CHUNK = 256 * 1024
#: How soon output is looked for again: at once while it flows, more seldom the longer it is silent.
_SOONEST_S, _LATEST_S = 0.02, 0.4
#: How long a shim may take, after its tree is dead, to write how that ended.
_SHIM_WAIT_S = 5.0
_HANDLE = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")


class LocalExecutor:
    """Runs attempts under `folder`; `wake` is what a shim executes to start a daemon where none is."""

    def __init__(self, folder: Path, daemon_lock: Path, wake: Sequence[str]) -> None:
        self._folder = folder
        self._daemon_lock = daemon_lock
        self._wake = list(wake)

    def __repr__(self) -> str:
        return f"LocalExecutor({str(self._folder)!r})"

    def _at(self, handle: str) -> Path:
        assert _HANDLE.fullmatch(handle), handle
        return self._folder / handle

    async def submit(self, spec: AttemptSpec) -> None:
        await to_thread.run_sync(self._submit, spec)

    def _submit(self, spec: AttemptSpec) -> None:
        folder = self._at(spec.handle)
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / "started.json").exists() or (folder / "end.json").exists():
                return
            _write_orders(folder, spec, str(self._daemon_lock), self._wake)
            _start_shim(folder, lock, spec.environment, json.loads((folder / "spec.json").read_text())["mark"])
        except BlockingIOError:
            return  # a shim has it already
        finally:
            os.close(lock)

    async def send(self, handle: str, data: bytes) -> None:
        await to_thread.run_sync(_append, self._at(handle) / "input", data)
        await to_thread.run_sync(_poke, self._at(handle))

    async def close_input(self, handle: str) -> None:
        await anyio.Path(self._at(handle) / "input.end").touch(mode=0o600)
        await to_thread.run_sync(_poke, self._at(handle))

    async def output(self, handle: str, after: int = 0) -> AsyncIterator[bytes]:
        file = self._at(handle) / "output"
        pause = _SOONEST_S
        while True:
            ended = not await to_thread.run_sync(_is_held, self._at(handle))  # asked before the read that finds no more
            chunk = await to_thread.run_sync(_read, file, after, _CHUNK)
            if chunk:
                after += len(chunk)
                pause = _SOONEST_S
                yield chunk
            elif ended:
                return
            else:
                await self._ended_within(handle, pause)
                pause = min(pause * 1.5, _LATEST_S)

    async def read_output(self, handle: str, start: int, limit: int, *, errors: bool = False) -> tuple[bytes, int]:
        file = self._at(handle) / ("errors" if errors else "output")
        try:
            size = (await anyio.Path(file).stat()).st_size
        except FileNotFoundError:
            return b"", 0
        return await to_thread.run_sync(_read, file, start if start >= 0 else max(0, size + start), limit), size

    async def outcome(self, handle: str) -> Outcome:
        while await to_thread.run_sync(_is_held, self._at(handle)):
            await self._ended_within(handle, 1.0)
        return await to_thread.run_sync(_read_outcome, self._at(handle))

    async def _ended_within(self, handle: str, seconds: float) -> None:
        """Return when the shim ends, but after `seconds` at the latest."""
        started = await to_thread.run_sync(_read_json, self._at(handle) / "started.json")
        with anyio.move_on_after(seconds):
            if not started:
                await anyio.sleep(min(seconds, _SOONEST_S))  # the shim is coming up
                return
            try:
                handle_of_shim = os.pidfd_open(started["shim"][1])
            except OSError:
                return
            try:
                await anyio.wait_readable(handle_of_shim)
            finally:
                os.close(handle_of_shim)

    async def cancel(self, handle: str, grace: float) -> list[str]:
        folder = self._at(handle)
        if await to_thread.run_sync(_is_held, folder):
            await anyio.Path(folder / "cancel").touch(mode=0o600)
            await to_thread.run_sync(_poke, folder)
        left = await to_thread.run_sync(_end_tree, folder, grace)
        with anyio.move_on_after(_SHIM_WAIT_S):
            await self.outcome(handle)
        return await to_thread.run_sync(_end_shim, folder) or left

    async def forget(self, handle: str) -> None:
        await to_thread.run_sync(lambda: shutil.rmtree(self._at(handle), ignore_errors=True))

    async def capacity(self) -> Capacity:
        memory = await to_thread.run_sync(psutil.virtual_memory)
        return Capacity(os.cpu_count() or 1, memory.total, memory.available)


def _write_orders(folder: Path, spec: AttemptSpec, daemon_lock: str, wake: list[str]) -> None:
    """Put on disk all that the shim reads, except the environment."""
    for stale in ("input", "input.end", "cancel", "poke"):
        (folder / stale).unlink(missing_ok=True)
    os.mkfifo(folder / "poke", 0o600)
    _append(folder / "input", spec.input)
    if spec.closed:
        (folder / "input.end").touch(mode=0o600)
    orders = {
        "argv": spec.argv,
        "cwd": spec.cwd,
        "mark": secrets.token_hex(16),
        "timeout_s": spec.timeout_s,
        "grace_s": 5.0,
        "together": spec.together,
        "daemon_lock": daemon_lock,
        "wake": wake,
    }
    (folder / "spec.json").write_text(json.dumps(orders))
    (folder / "spec.json").chmod(0o600)


def _start_shim(folder: Path, lock: int, environment: Mapping[str, str], mark: str) -> None:
    """Fork the shim, which inherits the lock, and send it the program's environment."""
    argv = [sys.executable, "-S", "-E", "-I", shim.__file__, str(folder), str(lock)]
    with (folder / "shim.log").open("ab") as log:
        child = subprocess.Popen(  # noqa: S603
            argv,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
            env={**os.environ, "FORKJOIN_KEEPER": "1"},
        )
    pairs = {**environment, "FORKJOIN_MARK": mark}
    data = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in pairs.items())
    assert child.stdin
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(data + b"\0")
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    _children.append(child)
    _children[:] = [c for c in _children if c.poll() is None]  # reaps those that have ended


#: Shims that this process has started, to be reaped: an ended one stays a zombie until somebody asks for it.
_children: list["subprocess.Popen[bytes]"] = []


def _append(file: Path, data: bytes) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fdatasync(opened.fileno())


def _poke(folder: Path) -> None:
    """Tell the shim to look; where none reads the fifo (ENXIO), there is nobody to tell."""
    with contextlib.suppress(OSError):
        fifo = os.open(folder / "poke", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fifo, b"!")
        finally:
            os.close(fifo)


def _is_held(folder: Path) -> bool:
    """Whether a shim has this attempt, or is about to."""
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask don't take each other for a shim
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _read(file: Path, start: int, limit: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(start)
            return opened.read(limit)
    except FileNotFoundError:
        return b""


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None


def _read_outcome(folder: Path) -> Outcome:
    if end := _read_json(folder / "end.json"):
        return Outcome(
            end["kind"], end.get("code", 0), end.get("error", ""), end["duration_s"], tuple(end.get("left", ()))
        )
    if (folder / "started.json").exists():
        return Outcome("lost")
    return Outcome("not_started", error="its supervisor did not come up (see shim.log in its folder)")


def _end_tree(folder: Path, grace: float) -> list[str]:
    orders = _read_json(folder / "spec.json")
    if orders is None:
        return []
    started = _read_json(folder / "started.json")
    root: int | None = started["shim"][1] if started and process.is_alive(process.Identity(*started["shim"])) else None
    left = process.end(lambda: process.tree(orders["mark"], root), grace)
    return [f"{entry.name} (pid {entry.identity.pid})" for entry in left]


def _end_shim(folder: Path) -> list[str]:
    """Kill a shim that did not end though its tree is dead; where it has ended, nothing is left to do."""
    started = _read_json(folder / "started.json")
    if not _is_held(folder) or not started:
        return []
    identity = process.Identity(*started["shim"])
    left = process.end(lambda: [e for e in [process.read_entry(identity.pid)] if e and e.identity == identity], 0)
    return [f"{entry.name} (pid {entry.identity.pid})" for entry in left]
