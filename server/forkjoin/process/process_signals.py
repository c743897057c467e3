"""Signals to a process that is identified by more than its pid, which another process may reuse.

Standard library only, since the shim imports this module.
"""

import contextlib
import os
import signal
from collections.abc import Callable

from forkjoin.process.process_table import Process, ProcessIdentity, is_alive, read_stat

#: How often `suspend_all` searches for processes that were forked since its last search.
_SUSPEND_PASSES = 50


def open_process(identity: ProcessIdentity) -> int | None:
    """Return a file descriptor that refers to this process, or `None` if it has ended.

    The descriptor becomes readable when the process ends (pidfd_open(2)). The caller closes it.
    """
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    if is_alive(identity):
        return pidfd
    os.close(pidfd)
    return None


def send_signal(identity: ProcessIdentity, signum: signal.Signals) -> None:
    """Send a signal to this process, if it is still alive and this user may signal it."""
    pidfd = open_process(identity)
    if pidfd is None:
        return
    with contextlib.suppress(OSError):  # EPERM, or the process has just ended
        signal.pidfd_send_signal(pidfd, signum)
    os.close(pidfd)


def resume_if_stopped(identity: ProcessIdentity) -> bool:
    """Send SIGCONT to a process that is stopped. Return whether it was stopped.

    A process that a debugger has stopped (state `t`) counts as not stopped.
    """
    try:
        is_stopped = read_stat(identity.pid)[1][0] == b"T"
    except OSError:
        return False
    if is_stopped:
        send_signal(identity, signal.SIGCONT)
    return is_stopped


def suspend_all(find: Callable[[], list[Process]]) -> bool:
    """Send SIGSTOP to all processes that `find` returns, until it returns no new ones.

    Returns:
        Whether `find` returned any process.
    """
    suspended: set[ProcessIdentity] = set()
    for _ in range(_SUSPEND_PASSES):
        new = [process for process in find() if process.identity not in suspended]
        if not new:
            break
        for process in new:
            send_signal(process.identity, signal.SIGSTOP)
        suspended.update(process.identity for process in new)
    return bool(suspended)
