"""The shim: the small process that owns one attempt and outlives the daemon.

The daemon starts `python -S -E -I shim.py FOLDER LOCK` in a new session. LOCK is the descriptor of the open lock file.
The program's environment arrives on stdin and is never written to a disk. All other data is in the files of FOLDER:

    lock          locked by the daemon and the shim together, from before the fork until the shim has ended
    spec.json     the program to start, and its limits
    started.json  the identity of the shim; written before the program starts; from then on no other shim starts it
    input         bytes for the program's stdin; the daemon appends to it
    input.end     exists once no more input will come
    poke          a FIFO; a byte in it means that input, input.end or cancel has changed
    output        what the program printed
    errors        what the program printed to stderr, if stderr is kept apart from stdout
    frozen        exists while the program is frozen; its time limits stand still
    waiting       exists while the program waits for an answer; its silence limit stands still
    cancel        request to end the attempt within the grace period in this file, or not to start it
    end.json      how the attempt ended; written last and atomically
    full.json     replaces end.json if the disk is too full to write end.json
    released      offset up to which the daemon has read the output
    over          message about the limit that ends this attempt: a limit of all attempts together
    about.json    the agent's record, in case the database is lost
    asked.json    whether the agent was asked to stop or to pause before `cancel`, in case the database is lost

Standard library only: each running agent costs the memory of a shim, about 6 MB.
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

# Python's -I option hides forkjoin, so its folder is appended. At the end, it can't shadow the standard library.
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
#: Seconds between two checks that a daemon is running, which must record what happens.
_DAEMON_CHECK_S = 60.0
#: Seconds between two checks of the logs' sizes and growth.
_LOG_CHECK_S = 1.0
#: Seconds between two attempts to kill the survivors of an earlier SIGKILL.
_KILL_RETRY_S = 10.0
#: Values of spec.json that an older daemon does not write. Such a daemon still runs after forkjoin was upgraded.
_SPEC_DEFAULTS: dict[str, Any] = {
    "silence_s": None,
    "log_bytes": sys.maxsize,
    "keeps_unread": False,
    "cgroups": [],
    "cgroup_settings": (),
    "limits": {},
    "in_all": {},
    "open_files": resource_limits.INHERITED_OPEN_FILES,
}
#: Zombies reaped in one go. Processes that fork and exit without pause must not keep the shim from its other work.
_MAX_REAPED = 1000
#: Seconds from SIGTERM to SIGKILL at a time limit, if the shim itself gets SIGTERM, or if `cancel` is empty.
_GRACE_S = 5.0
#: Seconds from SIGTERM to SIGKILL for processes that are left when the program has ended by itself.
_LEFTOVER_GRACE_S = 1.0


class Shim:
    """The owner of the attempt in the working directory."""

    def __init__(self, lock: int) -> None:
        self.lock = lock  #: file descriptor
        with open("spec.json", encoding="utf-8") as file:
            self.spec: dict[str, Any] = _SPEC_DEFAULTS | json.load(file)
        self.cgroups: list[str] = self.spec["cgroups"]
        self.started_at = time.monotonic()  #: moved forward by the time that the program was frozen
        self.next_daemon_check = self.started_at + _DAEMON_CHECK_S
        self.clock_checked_at = self.started_at  #: time of the last call of `stop_clocks`
        self.frozen = False
        self.timed_out = ""  #: message about the time limit that was exceeded
        self.terminated = False  #: whether the shim itself got SIGTERM, e.g. because the machine shuts down
        self.status: int | None = None  #: wait status of the program, once it has ended
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
        """Return a descriptor that is readable after the shim got a signal.

        The kernel sends SIGCHLD when a child has ended.
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
        with os.fdopen(report, "rb") as file:  # execve(2) closes the other end
            number, _, reason = file.read().decode(errors="replace").partition(" ")
        if number:
            os.waitpid(self.pid, 0)
            raise OSError(int(number), reason)

    def exec_program(self, stdin: int, report: int, environment: dict[bytes, bytes]) -> NoReturn:
        """Replace the child process by the program.

        If that fails, write the error to `report` and exit.
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
        """Copy input and enforce limits until the process tree has ended.

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
        """Wait for children that have ended. Return the program's wait status.

        Return `None` while the program runs.
        """
        with contextlib.suppress(ChildProcessError):
            for _ in range(_MAX_REAPED):
                pid, status, used = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self.pid:
                    self.status = status
                    self.peak_rss = used.ru_maxrss * 1024  # of the largest process that the program has waited for
        return self.status

    def find_reason_to_end(self) -> float | None:
        """Return the grace period in seconds if the process tree must be ended now.

        Return `None` otherwise.
        """
        self.timed_out = self.find_exceeded_time_limit()
        if os.path.exists("cancel"):
            return attempt_log.read_number("cancel", _GRACE_S)  # the file is empty if the disk was full
        if self.limits.exceeded:
            return self.limits.grace
        return _GRACE_S if self.timed_out or self.terminated else None

    def stop_clocks(self) -> None:
        """Discount the time in which the program was frozen.

        For the silence limit, the time in which the program waited is discounted too.
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
        self.reap()  # otherwise the zombies of a fork-and-exit loop use up all pids within the grace period
        return attempt_processes.find_processes(self.spec["mark"], self.identity, next(iter(self.cgroups), None))

    def kill_children(self) -> list[process_table.Process]:
        return termination.kill_children(os.getpid(), self.spec["mark"], self.reap)

    def keep_killing(self) -> None:
        """Retry to kill the survivors until none is left.

        Meanwhile the shim stays their ancestor, so that they are still found as processes of this attempt.
        """
        os.close(self.lock)
        while self.survivors:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps children that end meanwhile
            time.sleep(_KILL_RETRY_S)
            signal.signal(signal.SIGCHLD, self.on_signal)  # from here on no child's pid can be reused
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
            with contextlib.suppress(OSError):  # somebody may have deleted the whole folder
                os.replace("full.json", "end.json")

    def start_daemon_if_missing(self) -> None:
        """Start a daemon, unless the daemon's lock shows that one is alive."""
        self.next_daemon_check = time.monotonic() + _DAEMON_CHECK_S
        argv: list[str] = self.spec["wake"]
        try:
            if not file_lock.is_held(self.spec["daemon_lock"]):
                os.posix_spawn(argv[0], argv, os.environ, setsid=True)
        except OSError as error:  # e.g. forkjoin was moved or removed: the program must go on all the same
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

    Ignored signals are inherited: nohup(1), for example, ignores SIGHUP for the daemon and its children.
    """
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def read_environment() -> dict[bytes, bytes] | None:
    """Read the program's environment from stdin.

    The environment consists of `NAME=value` entries that end with NUL, then one more NUL. Returns `None` if the last
    NUL is missing: the daemon died while it wrote, and the attempt counts as not started.
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
    with contextlib.suppress(ValueError, OSError):  # undoes what the daemon has raised for itself
        resource.setrlimit(resource.RLIMIT_NOFILE, shim.spec["open_files"])
    shim.run(environment)


if __name__ == "__main__":
    main()
