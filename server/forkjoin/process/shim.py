"""The shim: the small process that owns one attempt and outlives the daemon.

The daemon starts `python -S -E -I shim.py FOLDER LOCK` in a new session. LOCK is the descriptor of the open lock file.
The program's environment arrives on stdin and is never written to a disk. All other data is in the files of FOLDER:

    lock          locked from before the shim's start, first by daemon and shim together, until the shim has ended
    spec.json     the program to start, and its limits
    started.json  the identity of the shim; written before the program starts; no shim is started once it exists
    input         bytes for the program's stdin; the daemon appends to it
    input.end     exists once no more input will come
    poke          a FIFO; a byte in it means that input, input.end or cancel has changed
    output        what the program printed
    errors        what the program printed to stderr, if stderr is kept apart from stdout
    frozen        exists while the program is frozen; its time limits are suspended
    waiting       exists while the program waits for an answer; its silence limit is suspended
    cancel        exists if the attempt must end, or must not start; the seconds from SIGTERM to SIGKILL
    end.json      how the attempt ended; written last and atomically
    full.json     replaces end.json if the disk is too full to write end.json
    released      offset up to which the daemon has read the output
    over          exists if the attempt must end for a limit that the daemon enforces; a message about that limit
    about.json    the agent's record, in case the database is lost
    asked.json    whether the agent was asked to stop or to pause before `cancel`, in case the database is lost

Standard library only, which keeps a shim at about 6 MB of memory. Each running agent has one.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import selectors
import signal
import sys
import time
from typing import Any, NoReturn

# With Python's option -I, forkjoin's folder is not in the path. It comes last, so that no file in it is taken for a
# module of the standard library.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from forkjoin.core import file_lock
from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.error import is_transient
from forkjoin.process import (
    attempt_log,
    attempt_processes,
    cgroup_files,
    process_table,
    resource_limits,
    termination,
    usage,
)
from forkjoin.process.stdin_feed import StdinFeed

_PR_SET_CHILD_SUBREAPER = 36
_CHUNK = 65536
#: Seconds between two checks whether a daemon is running. A daemon is needed to record what the program prints.
_DAEMON_CHECK_S = 60.0
#: Seconds between two checks of the logs' sizes and growth.
_LOG_CHECK_S = 1.0
#: Seconds between two attempts to kill processes that have survived SIGKILL.
_KILL_RETRY_S = 10.0
#: The most zombies that one call of `Shim.reap` reaps. Processes that fork and exit without pause make new ones as
#: fast, and must not keep the shim from its other work.
_MAX_REAPED = 1000
#: Seconds from SIGTERM to SIGKILL if a time limit is exceeded, the shim itself gets SIGTERM, or `cancel` is empty.
_GRACE_S = 5.0
#: Seconds from SIGTERM to SIGKILL for processes that still run when the program itself has ended.
_LEFTOVER_GRACE_S = 1.0


class Shim:
    """The owner of one attempt, whose folder is the working directory.

    Args:
        lock: The descriptor of the attempt's lock file.
    """

    def __init__(self, lock: int) -> None:
        self.lock = lock
        with open("spec.json", encoding="utf-8") as file:
            self.spec: dict[str, Any] = json.load(file)
        self.cgroups: list[str] = self.spec["cgroups"]
        #: Start of the time limit. It moves forward while the program is frozen.
        self.started_at = time.monotonic()
        self.next_daemon_check = self.started_at + _DAEMON_CHECK_S
        self.clock_checked_at = self.started_at  #: time of the last call of `stop_clocks`
        self.frozen = False  #: whether the program was frozen at the last call of `stop_clocks`
        self.timed_out = ""  #: a message about the time limit that was exceeded; empty if none was
        self.terminated = False  #: whether the shim itself got SIGTERM, e.g. because the machine shuts down
        self.status: int | None = None  #: wait status of the program; `None` while it runs
        self.survivors: list[process_table.Process] = []

    def run(self, environment: dict[bytes, bytes]) -> None:
        """Run the program to its end and write end.json."""
        self.identity = process_table.identify(os.getpid())
        write_record("started.json", self.identity)
        if os.path.exists("cancel"):
            end = describe_failed_start("it was stopped before it started")
        else:
            end = self.run_program(environment)
            cgroup_files.remove_empty(self.cgroups)
        self.write_end(end)
        self.start_daemon_if_missing()
        if self.survivors:
            self.keep_killing()

    def run_program(self, environment: dict[bytes, bytes]) -> dict[str, Any]:
        """Start the program and serve it until its process tree has ended.

        Return the content of end.json.
        """
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.applied_settings = cgroup_files.create(self.cgroups, self.spec["cgroup_settings"])
        try:
            signal_pipe = self.listen_to_signals()
            program_stdin, stdin = os.pipe2(os.O_CLOEXEC)
            self.start_program(program_stdin, environment)
        except OSError as error:
            return describe_failed_start(str(error.strerror), is_transient=is_transient(error))
        os.close(program_stdin)
        os.set_blocking(stdin, False)
        self.logs = attempt_log.Logs(self.spec)
        # Created after the start of the program, which removes the cgroups that it can't join.
        meter = usage.Meter(self.spec["mark"], self.cgroups, self.applied_settings)
        self.limits = resource_limits.LimitMonitor(self.spec["limits"], self.spec["in_all"], meter)
        end = self.describe_end(self.serve(stdin, signal_pipe))
        self.logs.check()
        return end

    def listen_to_signals(self) -> int:
        """Return a file descriptor that becomes readable when the shim gets a signal.

        SIGCHLD tells that a child has ended, and SIGHUP, SIGINT or SIGTERM that the shim must end.
        """
        readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self.on_signal)
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.on_signal)
        return readable

    def on_signal(self, signum: int, _frame: object) -> None:
        self.terminated = self.terminated or signum != signal.SIGCHLD

    # -- starting

    def start_program(self, stdin: int, environment: dict[bytes, bytes]) -> None:
        """Fork and execute the program.

        Raises:
            OSError: The program could not be started. Its `strerror` names the step that failed.
        """
        report, child_report = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self.exec_program(stdin, child_report, environment)
        os.close(child_report)
        with os.fdopen(report, "rb") as file:  # reading ends when execve(2) closes the other end
            number, _, reason = file.read().decode(errors="replace").partition(" ")
        if number:
            os.waitpid(self.pid, 0)
            raise OSError(int(number), reason)

    def exec_program(self, stdin: int, report: int, environment: dict[bytes, bytes]) -> NoReturn:
        """Replace the child process by the program.

        If that fails, write the error number and a message to `report`, and exit.
        """
        argv: list[str] = self.spec["argv"]
        cwd: str = self.spec["cwd"]
        step = "its output"
        try:
            os.setsid()
            output = open_for_append("output")
            errors = output if self.spec["together"] else open_for_append("errors")
            for number, descriptor in enumerate((stdin, output, errors)):
                os.dup2(descriptor, number)
            restore_signals()
            cgroup_files.join_or_remove(self.cgroups)
            has_cpu_limit = any(file.endswith(resource_limits.CPU_LIMIT_FILES) for file in self.applied_settings)
            resource_limits.apply_to_this_process(self.spec["limits"], nice=not has_cpu_limit)
            step = f"its folder {cwd}"
            os.chdir(os.fsencode(cwd))
            step = f"the program {argv[0]}"
            os.execvpe(os.fsencode(argv[0]), [os.fsencode(word) for word in argv], environment)  # noqa: S606
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            os.write(report, f"{getattr(error, 'errno', 0)} {step}: {reason}".encode(errors="replace"))
        finally:
            os._exit(127)

    # -- serving

    def serve(self, stdin: int, signal_pipe: int) -> int:
        """Copy input and enforce limits until the program has ended, then end its tree.

        Return the program's wait status.
        """
        poke = os.open("poke", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        feed = StdinFeed(stdin)
        with selectors.DefaultSelector() as selector:
            selector.register(signal_pipe, selectors.EVENT_READ)
            selector.register(poke, selectors.EVENT_READ)
            while (status := self.reap()) is None:
                feed.copy(selector)
                self.logs.check()
                self.stop_clocks()
                self.limits.check()
                grace = self.find_reason_to_end()
                if grace is not None:
                    self.terminate_tree(grace)
                    continue
                for key, _ in selector.select(self.seconds_to_next_check()):
                    if key.fd in (signal_pipe, poke):
                        os.read(key.fd, _CHUNK)
                if time.monotonic() >= self.next_daemon_check:
                    self.start_daemon_if_missing()
        self.limits.check_last(os.waitstatus_to_exitcode(status), self.peak_rss)
        self.terminate_tree(_LEFTOVER_GRACE_S)
        return status

    def reap(self) -> int | None:
        """Reap children that have ended. Return the program's wait status.

        Return `None` while the program runs. The shim's children are the program, and orphans among its descendants.
        """
        with contextlib.suppress(ChildProcessError):
            for _ in range(_MAX_REAPED):
                pid, status, used = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self.pid:
                    self.status = status
                    # The largest of the program and the children that it has reaped.
                    self.peak_rss = used.ru_maxrss * 1024
        return self.status

    def find_reason_to_end(self) -> float | None:
        """Return the seconds from SIGTERM to SIGKILL if the process tree must end now.

        Return `None` if it need not end.
        """
        self.timed_out = self.find_exceeded_time_limit()
        if os.path.exists("cancel"):
            return attempt_log.read_number("cancel", _GRACE_S)  # the file is empty if the disk was full
        if self.limits.exceeded:
            return self.limits.grace
        return _GRACE_S if self.timed_out or self.terminated else None

    def stop_clocks(self) -> None:
        """Extend the time limits by the time in which the program was frozen.

        That is the time since the last call. The silence limit is also extended while the program waits for an answer.
        """
        now = time.monotonic()
        if self.frozen:
            self.started_at += now - self.clock_checked_at
        if self.frozen or os.path.exists("waiting"):
            self.logs.last_growth += now - self.clock_checked_at
        self.clock_checked_at, self.frozen = now, os.path.exists("frozen")

    def find_exceeded_time_limit(self) -> str:
        """Return a message about the time limit that is exceeded, or an empty string."""
        silence: float | None = self.spec["silence_s"]
        if self.seconds_to_timeout() <= 0:
            return f"by its time limit of {resource_limits.format_seconds(self.spec['timeout_s'])}"
        if silence is not None and time.monotonic() >= self.logs.last_growth + silence:
            return f"after {resource_limits.format_seconds(silence)} of silence"
        return ""

    def seconds_to_next_check(self) -> float:
        if self.frozen:
            return _LOG_CHECK_S
        return max(0.0, min(_LOG_CHECK_S, self.seconds_to_timeout(), self.limits.next_check - time.monotonic()))

    def seconds_to_timeout(self) -> float:
        timeout: float | None = self.spec["timeout_s"]
        return math.inf if timeout is None else self.started_at + timeout - time.monotonic()

    # -- ending

    def terminate_tree(self, grace: float) -> None:
        self.survivors = termination.terminate(self.find_processes, grace, self.kill_children)

    def find_processes(self) -> list[process_table.Process]:
        self.reap()  # unreaped zombies of a program that forks without pause would use up all pids
        return attempt_processes.find_processes(self.spec["mark"], self.identity, next(iter(self.cgroups), None))

    def kill_children(self) -> list[process_table.Process]:
        return termination.kill_children(os.getpid(), self.spec["mark"], self.reap)

    def keep_killing(self) -> None:
        """Try again and again to kill processes that have survived SIGKILL.

        The shim returns once they have ended. Until then it remains their ancestor, by which they are found as
        processes of this attempt. The lock is released first, since the attempt has ended.
        """
        os.close(self.lock)
        while self.survivors:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so the kernel reaps children that end during the pause
            time.sleep(_KILL_RETRY_S)
            # So the pid of a child that ends can't be reused before the kill.
            signal.signal(signal.SIGCHLD, self.on_signal)
            self.survivors = self.kill_children()
        cgroup_files.remove_empty(self.cgroups)

    def describe_end(self, status: int) -> dict[str, Any]:
        """Return the content of end.json for a program that ended with this wait status."""
        code = os.waitstatus_to_exitcode(status)
        by_itself = "signalled" if code < 0 else "exited"
        return {
            "kind": "timed_out" if self.timed_out else "limited" if self.limits.exceeded else by_itself,
            "code": abs(code),
            "error": self.timed_out or self.limits.exceeded,
            "left": [str(process) for process in self.survivors],
            "peak_memory_bytes": self.limits.peak_memory or None,
            "asked": os.path.exists("cancel"),
        }

    def write_end(self, end: dict[str, Any]) -> None:
        try:
            write_record("end.json", end | {"duration_s": round(time.monotonic() - self.started_at, 3)})
        except OSError:
            with contextlib.suppress(OSError):  # the program may have deleted the attempt's folder
                os.replace("full.json", "end.json")

    def start_daemon_if_missing(self) -> None:
        """Start a daemon, unless one is alive and so holds the daemon's lock."""
        self.next_daemon_check = time.monotonic() + _DAEMON_CHECK_S
        argv: list[str] = self.spec["wake"]
        try:
            if not file_lock.is_held(self.spec["daemon_lock"]):
                os.posix_spawn(argv[0], argv, os.environ, setsid=True)
        except OSError as error:  # e.g. forkjoin was removed, which must not end the program
            sys.stderr.write(f"can't start a daemon: {error}\n")


def open_for_append(name: str) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)


def write_record(name: str, content: object) -> None:
    """Write a JSON file atomically and durably."""
    write_atomically(name, json.dumps(content).encode(), durable=True)


def describe_failed_start(reason: str, *, is_transient: bool = False) -> dict[str, Any]:
    """Return the content of end.json for a program that could not be started.

    Args:
        is_transient: Whether the reason is transient, so that another attempt may succeed.
    """
    return {"kind": "not_started", "error": reason, "passing": is_transient}


def restore_signals() -> None:
    """Reset all signal handlers and the signal mask to their defaults.

    The program would inherit ignored signals. The daemon ignores SIGHUP if it was started with nohup(1), for example.
    """
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def read_environment() -> dict[bytes, bytes] | None:
    """Return the program's environment, which the daemon writes to stdin.

    It consists of `NAME=value` entries that end with a NUL each, and one more NUL. If the last NUL is missing, the
    daemon has died during the write. Then return `None`: the attempt counts as not started.
    """
    with os.fdopen(0, "rb", closefd=False) as file:
        data = file.read()
    if not data.endswith(b"\0\0"):
        return None
    pairs = (item.partition(b"=") for item in data[:-2].split(b"\0"))
    return {name: value for name, _, value in pairs}


def main() -> None:
    os.set_inheritable(int(sys.argv[2]), False)  # the program must not inherit the lock
    environment = read_environment()
    if environment is None:
        return
    os.chdir(sys.argv[1])
    shim = Shim(int(sys.argv[2]))
    with contextlib.suppress(ValueError, OSError):  # the daemon has raised this limit for itself
        resource.setrlimit(resource.RLIMIT_NOFILE, shim.spec["open_files"])
    shim.run(environment)


if __name__ == "__main__":
    main()
