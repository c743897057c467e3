"""The files of an attempt's folder, as the daemon writes and reads them. `shim` describes them."""

import contextlib
import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from forkjoin.core import file_lock
from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.outcome import Outcome
from forkjoin.core.tree_limits import TreeLimits
from forkjoin.process import attempt_cgroups, attempt_log, resource_limits, shim_control
from forkjoin.process.attempt_spec import AttemptSpec

_CHUNK = 256 * 1024
#: The outcome if the disk was too full for the shim to write end.json. Then the output may be incomplete too, so that
#: the program's success is unknown.
_DISK_FULL = Outcome("lost", error="the disk was full when it ended")


class Page(NamedTuple):
    """Consecutive bytes of a program's output."""

    data: bytes
    start: int  #: offset of the first byte; higher than requested if bytes were dropped there
    size: int  #: bytes that the program has printed so far, dropped ones included


def write_shim_files(folder: Path, spec: AttemptSpec, total_limits: TreeLimits, daemon: dict[str, object]) -> None:
    """Write the files that the shim reads, all but the environment.

    The environment must not be on a disk.

    Args:
        daemon: The keys of spec.json with which the shim starts a daemon.
    """
    for stale in ("about.json", "input", "input.end", "over", "poke"):
        (folder / stale).unlink(missing_ok=True)
    os.mkfifo(folder / "poke", 0o600)
    append_input(folder / "input", spec.input)
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
        "mark": str(folder),  # unique, and known without any file of the attempt
        "open_files": resource_limits.INHERITED_OPEN_FILES,
        "limits": asdict(spec.limits),
        "in_all": asdict(total_limits),
        **attempt_cgroups.plan(folder, spec.limits, total_limits),
        **daemon,
    }
    append_input(folder / "about.json", json.dumps(dict(spec.about)).encode())
    write_atomically(folder / "full.json", shim_control.OUTCOME.dump_json(_DISK_FULL, by_alias=True))
    write_atomically(folder / "spec.json", json.dumps(shim_spec).encode())


def append_input(file: Path, data: bytes, once: bool = False) -> bool:
    """Append data to a file durably. Return `False` if the file was closed before.

    Args:
        once: Whether to append nothing, and return `True`, if the file already contains the data.

    Raises:
        OSError: There is no space. No part of the data was appended.
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


def close_input(file: Path) -> None:
    """Mark a file as complete: nothing is appended to it any more."""
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        write_atomically(file.with_name(f"{file.name}.end"), b"")


def read_chunk(file: Path, start: int) -> bytes:
    try:
        with file.open("rb") as opened:
            return os.pread(opened.fileno(), _CHUNK, start)
    except FileNotFoundError:
        return b""


def read_page(file: Path, start: int, limit: int) -> Page:
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            begin, data = attempt_log.read(opened.fileno(), start if start >= 0 else max(0, size + start), limit)
            return Page(data, begin, size)
    except FileNotFoundError:
        return Page(b"", 0, 0)


def release_output(folder: Path, offset: int) -> None:
    """Tell the shim that output up to this offset was read and may be dropped.

    If the shim has ended, drop the bytes in its place.
    """
    with contextlib.suppress(OSError, ValueError, LookupError):  # a later call tries again
        write_atomically(folder / "released", str(offset).encode())
        if not file_lock.is_held(folder / "lock"):
            limit = json.loads((folder / "spec.json").read_bytes())["log_bytes"]
            with (folder / "output").open("r+b") as opened:
                attempt_log.shorten(opened.fileno(), limit, offset)


def read_outcome(folder: Path) -> Outcome:
    if end := shim_control.read_record(folder / "end.json", shim_control.OUTCOME):
        return end
    if (folder / "started.json").exists():
        return Outcome("lost")
    if (folder / "cancel").exists():
        return Outcome("not_started", error="it was stopped before it started")
    return Outcome(
        "not_started", error="its supervisor did not come up (see shim.log in its folder)", is_transient=True
    )
