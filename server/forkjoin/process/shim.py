"""The shim: the small process that owns one attempt and outlives the daemon.

`python -S -E -I shim.py FOLDER LOCK`, with the descriptor of its lock, in a session of its own. Everything it is told
stands in files of FOLDER, except the program's environment, which comes through stdin and is written nowhere:

    lock          locked by daemon and shim together from before the fork until the shim has ended
    spec.json     what to start
    started.json  who the shim is; written before the program is started, which from then on never happens again
    input         what goes to the program's stdin; the daemon appends to it      input.end  nothing more will come
    poke          a fifo: a byte in it says that input, input.end or cancel has changed
    output errors what the program printed; `errors` only where it is kept apart
    frozen        the program is stopped in midst: no time passes for its limits
    waiting       the program waits for an answer: its silence does not count
    cancel        the attempt is to end, within the grace that stands in it; nothing is started where it is there
    end.json      how it ended; written last, and by rename, so that it is whole or not there
    full.json     what becomes end.json where the disk is too full to write one
    released      up to where the output was read by whoever must read all of it
    over          the limit of all attempts together that this one is to be ended for, in words
    about.json    whose attempt it is, for whoever finds this folder without the records
    asked.json    whether its agent was asked to stop, or to pause, before `cancel`; for the same

Standard library only; its own 6 MB are paid for every agent that runs.
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

# With -I nothing of ours can be imported until we say where it is; appended, so that only the standard library shadows.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from forkjoin.core import file_lock
from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.error import is_passing
from forkjoin.process import attempt_log, cgroup_files, process_tree, resource_limits, usage
from forkjoin.process.stdin_feed import Feed

_PR_SET_CHILD_SUBREAPER = 36
_CHUNK = 65536
#: How often a shim looks whether a daemon is there to take note of it.
_WAKE_EVERY_S = 60.0
#: How often the logs are looked at: how long they are, and whether they have grown.
_LOOK_EVERY_S = 1.0
#: How often it is tried again to end what could not be ended.
_AGAIN_S = 10.0
#: What a daemon does not say that was running when a newer forkjoin was installed, this file with it.
_NOT_TOLD: dict[str, Any] = {
    "silence_s": None,
    "log_bytes": sys.maxsize,
    "keeps_unread": False,
    "cgroups": [],
    "cgroup_settings": (),
    "limits": {},
    "in_all": {},
    "open_files": resource_limits.OPEN_FILES,
}
#: How many are waited for before something else is looked at: they may end faster than that is done.
_MOST_REAPED = 1000
#: From TERM to KILL where nobody says otherwise: at the deadline, or when somebody ends the shim itself.
_GRACE_S = 5.0
#: What children of the program get, after it has ended by itself, before they are killed.
_LEFTOVER_GRACE_S = 1.0


class Shim:
    """Owns the attempt in the working directory."""

    def __init__(self, lock: int) -> None:
        self.lock = lock  #: its descriptor
        with open("spec.json", encoding="utf-8") as file:
            self.spec: dict[str, Any] = _NOT_TOLD | json.load(file)
        self.groups: list[str] = self.spec["cgroups"]
        self.began = time.monotonic()
        self.next_wake = self.began + _WAKE_EVERY_S
        self.looked = self.began  #: when it was last looked whether the program is frozen
        self.frozen = False
        self.late = ""  #: the limit of time that ended it, in words
        self.terminated = False  #: somebody, such as the machine going down, ends the shim itself
        self.status: int | None = None  #: the program's wait status, once it has ended
        self.left: list[process_tree.Entry] = []

    def run(self, environment: dict[bytes, bytes]) -> None:
        """Start the program, serve it to its end, and write how that was."""
        self.owner = process_tree.identify(os.getpid())
        write_record("started.json", self.owner)
        if os.path.exists("cancel"):
            how = not_started("it was stopped before it started")
        else:
            how = self.live(environment)
            cgroup_files.remove(self.groups)
        self.write_end(how)
        self.wake_daemon()
        if self.left:
            self.stay()

    def live(self, environment: dict[bytes, bytes]) -> dict[str, Any]:
        """The program's life; how it ended."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.held = cgroup_files.make(self.groups, self.spec["cgroup_settings"])
        try:
            wakeup = self.listen_to_signals()
            program_stdin, stdin = os.pipe2(os.O_CLOEXEC)
            self.start(program_stdin, environment)
        except OSError as error:
            return not_started(str(error.strerror), passing=is_passing(error))
        os.close(program_stdin)
        os.set_blocking(stdin, False)
        self.logs = Logs(self.spec)
        meter = usage.Meter(self.spec["mark"], self.groups, self.held)  # of those that the program is in by now
        self.watch = resource_limits.Watch(self.spec["limits"], self.spec["in_all"], meter)
        how = self.describe(self.serve(stdin, wakeup))
        self.logs.look()
        return how

    def listen_to_signals(self) -> int:
        """A descriptor that can be read when a child has ended, or somebody ends the shim."""
        wakeup, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self.on_signal)
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.on_signal)
        return wakeup

    def on_signal(self, signum: int, _frame: object) -> None:
        self.terminated = self.terminated or signum != signal.SIGCHLD

    # -- starting

    def start(self, stdin: int, environment: dict[bytes, bytes]) -> None:
        """Start the program, or raise the OSError that keeps it from that, which says what it was about."""
        report, reported = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self.become_program(stdin, reported, environment)
        os.close(reported)
        with os.fdopen(report, "rb") as file:
            number, _, why = file.read().decode(errors="replace").partition(" ")
        if number:
            os.waitpid(self.pid, 0)
            raise OSError(int(number), why)

    def become_program(self, stdin: int, reported: int, environment: dict[bytes, bytes]) -> NoReturn:
        """In the child: become the program, or report why not and vanish."""
        argv: list[str] = self.spec["argv"]
        cwd: str = self.spec["cwd"]
        doing = "its output"
        try:
            os.setsid()
            output = open_private("output", os.O_APPEND)
            errors = output if self.spec["together"] else open_private("errors", os.O_APPEND)
            for number, descriptor in enumerate((stdin, output, errors)):
                os.dup2(descriptor, number)
            restore_signals()
            cgroup_files.join(self.groups)
            resource_limits.impose(
                self.spec["limits"], nice=not any(file.endswith(resource_limits.FAIR) for file in self.held)
            )
            doing = f"its folder {cwd}"
            os.chdir(os.fsencode(cwd))
            doing = f"the program {argv[0]}"
            os.execvpe(os.fsencode(argv[0]), [os.fsencode(word) for word in argv], environment)  # noqa: S606
        except Exception as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            os.write(reported, f"{getattr(error, 'errno', 0)} {doing}: {why}".encode(errors="replace"))
        finally:
            os._exit(127)

    # -- serving

    def serve(self, stdin: int, wakeup: int) -> int:
        """Copy input to the program until it has ended and its tree with it; its wait status."""
        poke = os.open("poke", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        feed = Feed(stdin)
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup, selectors.EVENT_READ)
            selector.register(poke, selectors.EVENT_READ)
            while (status := self.reap()) is None:
                feed.copy(selector)
                self.logs.look()
                self.hold_time()
                self.watch.look()
                grace = self.grace_to_end()
                if grace is not None:
                    self.end_tree(grace)
                    continue
                for key, _ in selector.select(self.patience()):
                    if key.fd in (wakeup, poke):
                        os.read(key.fd, _CHUNK)
                if time.monotonic() >= self.next_wake:
                    self.wake_daemon()
        self.watch.look_last(os.waitstatus_to_exitcode(status), self.largest)
        self.end_tree(_LEFTOVER_GRACE_S)
        return status

    def reap(self) -> int | None:
        """Reap whoever has ended; the program's wait status once it has."""
        with contextlib.suppress(ChildProcessError):
            for _ in range(_MOST_REAPED):
                pid, status, used = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self.pid:
                    self.status = status
                    self.largest = used.ru_maxrss * 1024  # of it or one that it has waited for, not of a daemon
        return self.status

    def grace_to_end(self) -> float | None:
        """The grace within which the tree is to end now; none where it may go on."""
        self.late = self.find_late()
        if os.path.exists("cancel"):
            return read_number("cancel", _GRACE_S)  # it is empty where there was no room for more
        if self.watch.reached:
            return self.watch.grace
        return _GRACE_S if self.late or self.terminated else None

    def hold_time(self) -> None:
        """Let no time pass for the limits while the program is frozen, nor for its silence while it waits."""
        now = time.monotonic()
        if self.frozen:
            self.began += now - self.looked
        if self.frozen or os.path.exists("waiting"):
            self.logs.heard += now - self.looked
        self.looked, self.frozen = now, os.path.exists("frozen")

    def find_late(self) -> str:
        """The limit that it is past, in words; '' where it is past none."""
        silence: float | None = self.spec["silence_s"]
        if self.time_left() <= 0:
            return f"by its time limit of {resource_limits.spell(self.spec['timeout_s'])}"
        if silence is not None and time.monotonic() >= self.logs.heard + silence:
            return f"after {resource_limits.spell(silence)} of silence"
        return ""

    def patience(self) -> float:
        """Until it is looked again, though nothing has happened."""
        if self.frozen:
            return _LOOK_EVERY_S
        return max(0.0, min(_LOOK_EVERY_S, self.time_left(), self.watch.next_look - time.monotonic()))

    def time_left(self) -> float:
        longest: float | None = self.spec["timeout_s"]
        return math.inf if longest is None else self.began + longest - time.monotonic()

    def end_tree(self, grace: float) -> None:
        self.left = process_tree.end(self.find_tree, grace, self.kill_below)

    def find_tree(self) -> list[process_tree.Entry]:
        self.reap()  # what forks and ends without pause would else take all pids there are within a grace
        return process_tree.tree(self.spec["mark"], self.owner, next(iter(self.groups), None))

    def kill_below(self) -> list[process_tree.Entry]:
        return process_tree.kill_children(os.getpid(), self.spec["mark"], self.reap)

    # -- ending

    def stay(self) -> None:
        """Stay above what could not be ended, so that it is still known as the attempt's, and go on trying."""
        os.close(self.lock)
        while self.left:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so nobody has to wait for those that end meanwhile
            time.sleep(_AGAIN_S)
            signal.signal(signal.SIGCHLD, self.on_signal)  # from here on no pid of a child is another's
            self.left = self.kill_below()
        cgroup_files.remove(self.groups)

    def describe(self, status: int) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(status)
        by_itself = "signalled" if code < 0 else "exited"
        return {
            "kind": "timed_out" if self.late else "limited" if self.watch.reached else by_itself,
            "code": abs(code),
            "error": self.late or self.watch.reached,
            "left": [str(entry) for entry in self.left],
            "peak_memory_bytes": self.watch.peak or None,
            "asked": os.path.exists("cancel"),
        }

    def write_end(self, how: dict[str, Any]) -> None:
        try:
            write_record("end.json", how | {"duration_s": round(time.monotonic() - self.began, 3)})
        except OSError:
            with contextlib.suppress(OSError):  # the whole folder may be gone
                os.replace("full.json", "end.json")

    def wake_daemon(self) -> None:
        """Start a daemon, if none is there: it holds its lock for as long as it lives."""
        self.next_wake = time.monotonic() + _WAKE_EVERY_S
        argv: list[str] = self.spec["wake"]
        try:
            if not file_lock.is_held(self.spec["daemon_lock"]):
                os.posix_spawn(argv[0], argv, os.environ, setsid=True)
        except OSError as error:  # forkjoin was moved or removed; the program is not to suffer for it
            sys.stderr.write(f"no daemon could be started: {error}\n")


class Logs:
    """What the program prints, looked at from outside: when that was last, and whether it is too much."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.limit: int = spec["log_bytes"]
        self.keeps_unread: bool = spec["keeps_unread"]
        self.files: dict[str, int] = {}
        self.sizes: list[int] = []
        self.heard = time.monotonic()
        self.complained = False
        with contextlib.suppress(OSError):  # the whole folder may be gone
            for name in ("output",) if spec["together"] else ("output", "errors"):
                self.files[name] = os.open(name, os.O_RDWR | os.O_CLOEXEC)

    def look(self) -> None:
        """See whether they have grown, and shorten those that are too long."""
        sizes = [os.fstat(file).st_size for file in self.files.values()]
        if sizes != self.sizes:
            self.sizes, self.heard = sizes, time.monotonic()
        try:
            for name, file in self.files.items():
                is_read = name == "output" and self.keeps_unread
                attempt_log.shorten(file, self.limit, int(read_number("released", 0)) if is_read else sys.maxsize)
        except OSError as error:
            if not self.complained:
                self.complained = True
                sys.stderr.write(f"what is printed can't be kept to its limit here: {error}\n")


def open_private(name: str, flags: int) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)


def write_record(name: str, content: object) -> None:
    """Write a JSON file atomically and durably."""
    write_atomically(name, json.dumps(content).encode(), durable=True)


def read_number(name: str, otherwise: float) -> float:
    """What stands in a file; something else where that is missing, or half written."""
    try:
        with open(name, encoding="utf-8") as file:
            return float(file.read())
    except (OSError, ValueError):
        return otherwise


def not_started(why: str, *, passing: bool = False) -> dict[str, Any]:
    return {"kind": "not_started", "error": why, "passing": passing}


def restore_signals() -> None:
    """Let the program find all signals as they are by default, whoever started the daemon (nohup ignores one)."""
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def read_environment() -> dict[bytes, bytes] | None:
    """The environment that the daemon sends: `NAME=value` each ended by NUL, and one more NUL at the very end.

    None where that last one is missing: the daemon died while it sent, and will find that nothing was started.
    """
    with os.fdopen(0, "rb", closefd=False) as file:
        data = file.read()
    if not data.endswith(b"\0\0"):
        return None
    pairs = (item.partition(b"=") for item in data[:-2].split(b"\0"))
    return {name: value for name, _, value in pairs}


def main() -> None:
    os.set_inheritable(int(sys.argv[2]), False)  # the lock is the shim's: what it starts must not have it
    environment = read_environment()
    if environment is None:
        return
    os.chdir(sys.argv[1])
    shim = Shim(int(sys.argv[2]))
    with contextlib.suppress(ValueError, OSError):  # as the daemon was started with; it has raised its own
        resource.setrlimit(resource.RLIMIT_NOFILE, shim.spec["open_files"])
    shim.run(environment)


if __name__ == "__main__":
    main()
