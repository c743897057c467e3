"""Shims, as a daemon sees them: started, found, asked to end; and what is done where one does not answer.

Those that this process has started are waited for, too: an ended one stays a zombie until somebody does.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from forkjoin.core import file_lock
from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.model import Outcome
from forkjoin.process import attempt_cgroups, process_tree, shim
from forkjoin.process.environment import encode

#: How long a shim that was asked to end its tree may take beyond the grace, before that is done without it.
WAIT_S = process_tree.KILL_WAIT_S + 5.0
#: By what an attempt ended whose word to end is empty: an older daemon left it so on a full disk.
_SOME_LIMIT = "by a limit of all agents together"
#: How soon a program that is to be frozen is looked for again.
_AGAIN_S = 0.05
#: How long a shim that has let go of its lock may take until it is gone, and how soon that is looked for.
_GONE_S, _SOONEST_S = 1.0, 0.001

_T = TypeVar("_T")
_IDENTITY = TypeAdapter(process_tree.Identity)
#: How an attempt's end is written down.
OUTCOME = TypeAdapter(Outcome)

#: The pids of those that this process has started, by the folders of their attempts.
_pids: dict[Path, int] = {}


def start(folder: Path, taken: int, environment: Mapping[str, str]) -> None:
    """Fork a shim, which inherits the lock, and send it the program's environment, with the attempt's mark."""
    sent = encode({**environment, process_tree.MARK: str(folder)})
    own = {name: value for name, value in os.environ.items() if name != process_tree.MARK}
    argv = [sys.executable, "-S", "-E", "-I", shim.__file__, str(folder), str(taken)]
    with os.fdopen(os.open(folder / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)) as log:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(taken,),
            start_new_session=True,
            env={**own, process_tree.KEEPER: "1"},
        )
    _pids[folder] = child.pid
    child.returncode = 0  # that it ends is seen by its pid
    assert child.stdin
    with contextlib.suppress(BrokenPipeError), child.stdin:  # if it is gone, nothing is started
        child.stdin.write(sent)


def started(above: Path) -> list[Path]:
    """The folders, of those in this one, whose shims were started here and not waited for yet."""
    return [folder for folder in [*_pids] if folder.parent == above]


def reap(folder: Path) -> None:
    """Wait for a shim of ours that has let go of its lock: it is all but gone, or stays above what is left."""
    if (folder / "lock").exists() and (pid := _pids.pop(folder, None)):
        with contextlib.suppress(ChildProcessError):  # whoever started us may have had SIGCHLD ignored
            if not _wait(pid):
                _pids[folder] = pid


def _wait(pid: int) -> bool:
    """Wait a second for a child to end. Return whether it did: a shim stays above what it can't end."""
    give_up = time.monotonic() + _GONE_S
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() >= give_up:
            return False
        time.sleep(_SOONEST_S)
    return True


def read_record(file: Path, kind: TypeAdapter[_T]) -> _T | None:
    """What a record says; nothing where it is missing or damaged."""
    try:
        return kind.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def read(folder: Path) -> process_tree.Identity | None:
    """Who the shim is, or was."""
    return read_record(folder / "started.json", _IDENTITY)


def open_handle(folder: Path) -> int | None:
    owner = read(folder)
    return owner and process_tree.open_handle(owner)


def find_live(folders: Iterable[Path]) -> dict[Path, process_tree.Identity]:
    """The shims of those whose shim is there."""
    live: dict[Path, process_tree.Identity] = {}
    for folder in folders:
        with contextlib.suppress(OSError):  # one that can't be looked at keeps nobody from looking at the others
            if file_lock.is_held(folder / "lock") and (owner := read(folder)):
                live[folder] = owner
    return live


def poke(folder: Path) -> None:
    """Tell the shim to look; where none reads the fifo (ENXIO), there is nobody to tell."""
    with contextlib.suppress(OSError):
        fifo = os.open(folder / "poke", os.O_WRONLY | os.O_NONBLOCK)
        with os.fdopen(fifo, "wb", buffering=0) as opened:
            opened.write(b"!")


def ask_to_end(folder: Path, grace: float) -> bool:
    """Leave word that the attempt is to end, for its shim or for whoever would start one; whether a shim has it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):  # the disk may be too full even for an empty file: the caller ends the tree
        try:
            write_atomically(folder / "cancel", str(grace).encode())
        except OSError:
            (folder / "cancel").touch(0o600)
    if owner := read(folder):
        process_tree.send(owner, signal.SIGCONT)  # its own program may have stopped it
    poke(folder)
    return file_lock.is_held(folder / "lock")


def freeze(folder: Path) -> None:
    give_up = time.monotonic() + process_tree.KILL_WAIT_S
    while file_lock.is_held(folder / "lock"):
        write_atomically(folder / "frozen", b"")
        if process_tree.stop(_finder(folder)):
            return
        if time.monotonic() > give_up:
            raise TimeoutError(f"nothing of {folder.name} is there to be stopped")
        time.sleep(_AGAIN_S)  # its program is about to come up, or its shim to go


def thaw(folder: Path) -> None:
    if (folder / "frozen").exists():
        for entry in _finder(folder)():
            process_tree.send(entry.identity, signal.SIGCONT)
        (folder / "frozen").unlink(missing_ok=True)
    (folder / "waiting").unlink(missing_ok=True)


def excuse(folder: Path) -> None:
    if folder.exists():  # else it was forgotten
        write_atomically(folder / "waiting", b"")


def _finder(folder: Path) -> Callable[[], list[process_tree.Entry]]:
    """What finds the processes of an attempt, time and again."""
    group, owner = next(iter(attempt_cgroups.find(folder)), None), read(folder)
    return lambda: process_tree.tree(str(folder), owner, group)


def end_tree(folder: Path, grace: float) -> list[str]:
    """End what a shim has not, and then the shim, if it is still there; what could not be ended."""
    owner = read(folder)
    left = process_tree.end(
        _finder(folder), grace, lambda: _kill_below(folder, owner), next(iter(attempt_cgroups.find(folder)), None)
    )
    if not left:
        left = process_tree.end(lambda: [entry for entry in process_tree.table() if entry.identity == owner], 0)
    attempt_cgroups.remove(folder)
    return [str(entry) for entry in left]


def _kill_below(folder: Path, owner: process_tree.Identity | None) -> list[process_tree.Entry]:
    """Kill what is below a shim that does not do so itself. Return what is left, which the shim stays above."""
    if owner is None or not process_tree.is_alive(owner):
        return []
    process_tree.send(owner, signal.SIGSTOP)
    left = process_tree.kill_children(owner.pid, str(folder))
    if left:
        process_tree.send(owner, signal.SIGCONT)
    return left


def end_without(folder: Path) -> None:
    """End an attempt whose shim does not heed its word to do so, and write down, in its stead, by what it ended."""
    if owner := read(folder):
        process_tree.send(owner, signal.SIGSTOP)  # it is to write down no other end
    with contextlib.suppress(OSError):  # the whole folder may be gone
        why = (folder / "over").read_text(encoding="utf-8", errors="replace") or _SOME_LIMIT
        try:
            write_atomically(folder / "end.json", OUTCOME.dump_json(Outcome("limited", error=why)))
        except OSError:
            (folder / "full.json").replace(folder / "end.json")
    end_tree(folder, 0)
