"""The daemon's side of shims: it starts and finds them, asks them to end, and acts for those that don't react.

The daemon also reaps the shims that it has started, which would otherwise remain zombies.
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
from forkjoin.core.outcome import Outcome
from forkjoin.process import attempt_cgroups, attempt_processes, process_signals, process_table, shim, termination
from forkjoin.process.environment import encode
from forkjoin.process.process_table import Process, ProcessIdentity

#: Seconds beyond the grace period that a shim may take to end its process tree. Then the daemon ends the tree itself.
WAIT_S = termination.KILL_WAIT_S + 5.0
#: Seconds between two searches for the processes that should be frozen.
_FREEZE_RETRY_S = 0.05
#: Seconds that a shim may take to exit after it has released its lock, and the pause between two checks.
_EXIT_TIMEOUT_S, _EXIT_CHECK_S = 1.0, 0.001

_T = TypeVar("_T")
_IDENTITY = TypeAdapter(ProcessIdentity)
#: The format of end.json.
OUTCOME = TypeAdapter(Outcome)

#: Pids of the shims that this process has started and not waited for yet, by the attempt's folder.
_pids: dict[Path, int] = {}


def start(folder: Path, lock: int, environment: Mapping[str, str]) -> None:
    """Start a shim, and send it the program's environment with the attempt's mark.

    Args:
        folder: The attempt's folder, which already contains the files that the shim reads.
        lock: Descriptor of the attempt's lock, which this process has taken. The shim inherits it.
        environment: The variables of the program, without the mark.
    """
    program_environment = encode({**environment, attempt_processes.MARK: str(folder)})
    own = {name: value for name, value in os.environ.items() if name != attempt_processes.MARK}
    argv = [sys.executable, "-S", "-E", "-I", shim.__file__, str(folder), str(lock)]
    with os.fdopen(os.open(folder / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)) as log:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,
            env={**own, attempt_processes.SUPERVISOR: "1"},
        )
    _pids[folder] = child.pid
    child.returncode = 0  # subprocess must not wait for the shim, since `reap` does
    assert child.stdin
    with contextlib.suppress(BrokenPipeError), child.stdin:  # the shim has ended, and has started no program
        child.stdin.write(program_environment)


def list_started(attempts: Path) -> list[Path]:
    """Return the attempts' folders of the shims that this process has yet to reap."""
    return [folder for folder in [*_pids] if folder.parent == attempts]


def reap(folder: Path) -> None:
    """Reap the shim of an ended attempt, if this process has started it.

    A shim that still tries to kill survivors does not exit within `_EXIT_TIMEOUT_S`. A later call reaps it.
    """
    if (folder / "lock").exists() and (pid := _pids.pop(folder, None)):
        with contextlib.suppress(
            ChildProcessError
        ):  # the kernel reaps children if the daemon has inherited an ignored SIGCHLD
            if not _wait(pid):
                _pids[folder] = pid


def _wait(pid: int) -> bool:
    """Reap a child, which may take `_EXIT_TIMEOUT_S`. Return whether it has exited."""
    deadline = time.monotonic() + _EXIT_TIMEOUT_S
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_EXIT_CHECK_S)
    return True


def read_record(file: Path, kind: TypeAdapter[_T]) -> _T | None:
    """Return the content of a JSON file, or `None` if the file is missing or damaged."""
    try:
        return kind.validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def read_shim(folder: Path) -> ProcessIdentity | None:
    """Return the identity of an attempt's shim, even if the shim has ended.

    Return `None` if no shim has written started.json yet.
    """
    return read_record(folder / "started.json", _IDENTITY)


def open_shim(folder: Path) -> int | None:
    """Return a file descriptor that becomes readable when an attempt's shim ends.

    Return `None` if no shim is alive. The caller closes the descriptor.
    """
    identity = read_shim(folder)
    return identity and process_signals.open_process(identity)


def find_live(folders: Iterable[Path]) -> dict[Path, ProcessIdentity]:
    """Return the identities of the shims that are alive, by the attempt's folder."""
    live: dict[Path, ProcessIdentity] = {}
    for folder in folders:
        with contextlib.suppress(OSError):  # one unreadable folder must not hide the others
            if file_lock.is_held(folder / "lock") and (identity := read_shim(folder)):
                live[folder] = identity
    return live


def poke(folder: Path) -> None:
    """Tell the shim, if one is alive, that input, input.end or cancel has changed."""
    with contextlib.suppress(OSError):  # ENXIO: no shim reads the FIFO
        fifo = os.open(folder / "poke", os.O_WRONLY | os.O_NONBLOCK)
        with os.fdopen(fifo, "wb", buffering=0) as opened:
            opened.write(b"!")


def ask_to_end(folder: Path, grace: float) -> bool:
    """Write the file `cancel`, so that the shim ends the attempt or never starts it.

    Return whether a shim is alive. This function does not wait for its end.

    Args:
        grace: Seconds from SIGTERM to SIGKILL.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(OSError):  # no space even for an empty file: after a while the caller ends the tree itself
        try:
            write_atomically(folder / "cancel", str(grace).encode())
        except OSError:
            (folder / "cancel").touch(0o600)
    if identity := read_shim(folder):
        process_signals.send_signal(identity, signal.SIGCONT)  # a shim that the program has stopped could not react
    poke(folder)
    return file_lock.is_held(folder / "lock")


def freeze(folder: Path) -> None:
    """Stop all processes of an attempt, and its time limits. Blocks for seconds.

    If the attempt has ended, nothing happens.

    Raises:
        TimeoutError: The attempt is alive, but has no process yet.
        OSError: The file `frozen` could not be written. No process was stopped.
    """
    deadline = time.monotonic() + termination.KILL_WAIT_S
    while file_lock.is_held(folder / "lock"):
        write_atomically(folder / "frozen", b"")
        if process_signals.suspend_all(_finder(folder)):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{folder.name} has no process to freeze: its program has not started yet. Try again.")
        time.sleep(_FREEZE_RETRY_S)  # the program will start soon, or the shim will exit soon


def thaw(folder: Path) -> None:
    """Resume all processes and all time limits of an attempt."""
    if (folder / "frozen").exists():
        for process in _finder(folder)():
            process_signals.send_signal(process.identity, signal.SIGCONT)
        (folder / "frozen").unlink(missing_ok=True)
    (folder / "waiting").unlink(missing_ok=True)


def pause_silence_limit(folder: Path) -> None:
    if folder.exists():  # it is missing if the attempt's files were removed
        write_atomically(folder / "waiting", b"")


def _finder(folder: Path) -> Callable[[], list[Process]]:
    """Return a function that finds the processes of an attempt."""
    cgroup, identity = next(iter(attempt_cgroups.find(folder)), None), read_shim(folder)
    return lambda: attempt_processes.find_processes(str(folder), identity, cgroup)


def terminate_tree(folder: Path, grace: float) -> list[str]:
    """End all processes of an attempt, and last of all its shim. Blocks.

    The daemon does this if the shim has not done it.

    Args:
        grace: Seconds from SIGTERM to SIGKILL.

    Returns:
        Names and pids of the processes that could not be ended. If there are any, the shim is not ended, since by their
        ancestor they are found as processes of the attempt.
    """
    identity = read_shim(folder)
    cgroup = next(iter(attempt_cgroups.find(folder)), None)
    survivors = termination.terminate(_finder(folder), grace, lambda: _kill_children(folder, identity), cgroup)
    if not survivors and identity:
        survivors = termination.terminate(lambda: _find_exactly(identity), 0)
    attempt_cgroups.remove_cgroups_of(folder)
    return [str(process) for process in survivors]


def _find_exactly(identity: ProcessIdentity) -> list[Process]:
    process = process_table.read_process(identity.pid)
    return [process] if process and process.identity == identity else []


def _kill_children(folder: Path, identity: ProcessIdentity | None) -> list[Process]:
    """Stop a shim if it is alive, and kill its descendants. Return the survivors.

    The shim remains stopped, since the caller ends it, unless there are survivors.
    """
    if identity is None or not process_table.is_alive(identity):
        return []
    process_signals.send_signal(identity, signal.SIGSTOP)
    survivors = termination.kill_children(identity.pid, str(folder))
    if survivors:
        process_signals.send_signal(identity, signal.SIGCONT)
    return survivors


def end_without_shim(folder: Path) -> None:
    """End an attempt whose shim does not react to the file `over`.

    The daemon writes end.json in place of the shim.
    """
    if identity := read_shim(folder):
        process_signals.send_signal(identity, signal.SIGSTOP)  # so it can't write another end.json
    with contextlib.suppress(OSError):  # the program may have deleted the attempt's folder
        message = (folder / "over").read_text(encoding="utf-8", errors="replace")
        try:
            write_atomically(folder / "end.json", OUTCOME.dump_json(Outcome("limited", error=message), by_alias=True))
        except OSError:
            (folder / "full.json").replace(folder / "end.json")
    terminate_tree(folder, 0)
