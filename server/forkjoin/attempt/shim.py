"""The shim: the small process that owns one attempt and outlives the daemon.

`python -S -E -I shim.py FOLDER LOCK`, with the descriptor of its lock, in a session of its own. Everything it is told stands in files of FOLDER, except the
program's environment, which comes through stdin and is written nowhere:

    lock          locked by daemon and shim together from before the fork until the shim has ended
    spec.json     what to start            started.json  who was started
    input         what goes to the program's stdin; the daemon appends to it      input.end  nothing more will come
    poke          a fifo: a byte in it says that input, input.end or cancel has changed
    output errors what the program printed; `errors` only where it is kept apart
    cancel        the daemon is ending the attempt
    end.json      how it ended; written last, and by rename, so that it is whole or not there

Standard library only; its own 3 MB are paid for every agent that runs.
"""

import ctypes
import fcntl
import json
import os
import selectors
import signal
import sys
import time
from typing import Any, NoReturn

# With -I nothing of ours can be imported until we say where it is; appended, so that only the standard library shadows.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120

from forkjoin.attempt import process  # noqa: E402

_PR_SET_CHILD_SUBREAPER = 36
_CHUNK = 65536
#: How often a shim looks whether a daemon is there to take note of it.
_WAKE_EVERY_S = 60.0
#: What children of the program get, after it has ended by itself, before they are killed.
_LEFTOVER_GRACE_S = 1.0


class Shim:
    def __init__(self, folder: str) -> None:
        os.chdir(folder)
        with open("spec.json", encoding="utf-8") as file:
            self.spec: dict[str, Any] = json.load(file)
        self.began = time.monotonic()
        timeout: float | None = self.spec["timeout_s"]
        self.deadline = None if timeout is None else self.began + timeout
        self.next_wake = self.began + _WAKE_EVERY_S
        self.timed_out = False
        self.left: list[process.Entry] = []

    def run(self, environment: dict[bytes, bytes]) -> None:
        """Start the program, serve it to its end, and write how that was."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        wakeup, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        stdin = self.start(environment)
        if isinstance(stdin, str):
            self.write_end({"kind": "not_started", "error": stdin})
        else:
            self.write_end(self.describe(self.serve(stdin, wakeup)))
        self.wake_daemon()

    # -- starting

    def start(self, environment: dict[bytes, bytes]) -> int | str:
        """Start the program; our end of its stdin, or why it could not be started."""
        program_stdin, stdin = os.pipe2(os.O_CLOEXEC)
        report, reported = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self.become_program(program_stdin, reported, environment)
        os.close(program_stdin)
        os.close(reported)
        with os.fdopen(report, "rb") as file:
            failure = file.read()
        if failure:
            os.waitpid(self.pid, 0)
            return failure.decode(errors="replace")
        started = {"shim": process.identify(os.getpid()), "program": process.identify(self.pid), "at": time.time()}
        write_whole("started.json", started)
        os.set_blocking(stdin, False)
        return stdin

    def become_program(self, stdin: int, reported: int, environment: dict[bytes, bytes]) -> NoReturn:
        """In the child: become the program, or report why not and vanish."""
        try:
            os.setsid()
            output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            together: bool = self.spec["together"]
            errors = output if together else os.open("errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for number, descriptor in enumerate((stdin, output, errors)):
                os.dup2(descriptor, number)
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            os.chdir(os.fsencode(self.spec["cwd"]))
            argv: list[str] = self.spec["argv"]
            os.execvpe(os.fsencode(argv[0]), [os.fsencode(a) for a in argv], environment)  # noqa: S606
        except OSError as error:
            os.write(reported, f"{error.strerror}: {error.filename or self.spec['argv'][0]}".encode())
        finally:
            os._exit(127)

    # -- serving

    def serve(self, stdin: int, wakeup: int) -> int:
        """Copy input to the program until it has ended and its tree with it; its wait status."""
        poke = os.open("poke", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        source = os.open("input", os.O_RDONLY | os.O_CLOEXEC)
        self.feed = Feed(stdin, source)
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup, selectors.EVENT_READ)
            selector.register(poke, selectors.EVENT_READ)
            while (status := self.reap()) is None:
                self.feed.copy(selector)
                if os.path.exists("cancel") or self.is_late():
                    self.end_tree(self.spec["grace_s"])
                    continue
                for key, _ in selector.select(self.patience()):
                    if key.fd in (wakeup, poke):
                        drain(key.fd)
                self.wake_daemon_now_and_then()
        self.end_tree(_LEFTOVER_GRACE_S)
        return status

    def reap(self) -> int | None:
        """Reap whoever has ended; the program's wait status once it has."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == self.pid:
                return status
            if pid == 0:
                return None

    def is_late(self) -> bool:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.timed_out = True
            self.deadline = None
        return self.timed_out

    def patience(self) -> float:
        if self.deadline is None:
            return _WAKE_EVERY_S
        return min(_WAKE_EVERY_S, max(0.0, self.deadline - time.monotonic()))

    def end_tree(self, grace: float) -> None:
        mark: str = self.spec["mark"]
        self.left = process.end(lambda: process.tree(mark, os.getpid()), grace)

    # -- ending

    def describe(self, status: int) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(status)
        kind = "timed_out" if self.timed_out else "signalled" if code < 0 else "exited"
        left = [f"{entry.name} (pid {entry.identity.pid})" for entry in self.left]
        return {"kind": kind, "code": abs(code), "left": left}

    def write_end(self, how: dict[str, Any]) -> None:
        write_whole("end.json", how | {"duration_s": round(time.monotonic() - self.began, 3)})

    def wake_daemon_now_and_then(self) -> None:
        now = time.monotonic()
        if now >= self.next_wake:
            self.next_wake = now + _WAKE_EVERY_S
            self.wake_daemon()

    def wake_daemon(self) -> None:
        """Start a daemon, if none is there: it holds its lock for as long as it lives."""
        lock = os.open(self.spec["daemon_lock"], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(lock)
        argv: list[str] = self.spec["wake"]
        os.posix_spawn(argv[0], argv, os.environ, setsid=True)


class Feed:
    """Copies the file `input` into the program's stdin, as far as it has grown and the program reads."""

    def __init__(self, stdin: int, source: int) -> None:
        self.stdin = stdin
        self.source = source
        self.pending = b""
        self.open = True

    def copy(self, selector: selectors.BaseSelector) -> None:
        """Copy what can be copied now; leave stdin in `selector` while the program does not read."""
        if not self.open:
            return
        complete = os.path.exists("input.end")  # looked for before the last read, so that nothing is missed
        try:
            while self.pending or (chunk := os.read(self.source, _CHUNK)):
                self.pending = self.pending or chunk
                self.pending = self.pending[os.write(self.stdin, self.pending) :]
        except BlockingIOError:
            if self.stdin not in selector.get_map():
                selector.register(self.stdin, selectors.EVENT_WRITE)
            return
        except BrokenPipeError:
            complete = True
        if self.stdin in selector.get_map():
            selector.unregister(self.stdin)
        if complete:
            os.close(self.stdin)
            self.open = False


def write_whole(name: str, content: dict[str, Any]) -> None:
    """Write a file of JSON that is there whole or not at all, whatever ends us."""
    with open(f"{name}.new", "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{name}.new", name)


def drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, _CHUNK):
            pass
    except BlockingIOError:
        pass


def read_environment() -> dict[bytes, bytes] | None:
    """The environment that the daemon sends: `NAME=value` each ended by NUL, and one more NUL at the very end.

    None where that last one is missing: the daemon died while it sent, and will find that nothing was started.
    """
    with os.fdopen(0, "rb", closefd=False) as file:
        data = file.read()
    if not data.endswith(b"\0") or (len(data) > 1 and not data.endswith(b"\0\0")):
        return None
    pairs = (item.partition(b"=") for item in data[:-1].split(b"\0") if item)
    return {name: value for name, _, value in pairs}


def main() -> None:
    os.set_inheritable(int(sys.argv[2]), False)  # the lock is the shim's: what it starts must not hold it
    environment = read_environment()
    if environment is None:
        return
    shim = Shim(sys.argv[1])
    shim.run(environment)


if __name__ == "__main__":
    main()
