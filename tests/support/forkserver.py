"""A server process that has imported forkjoin and forks command lines and daemons from itself.

A daemon's imports take most of a second and a command's imports 0.2 seconds; the tests start thousands of each. A
forked process has its own pid, arguments, environment and working directory. /proc shows them, too.
"""

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

_TESTS = Path(__file__).resolve().parents[1]
#: The path is long enough that a forked daemon can overwrite its arguments with `-m forkjoin daemon run`.
_SCRIPT = "support//forkserver.py"
_DAEMON = ("-m", "forkjoin", "daemon", "run")
#: Bytes reserved for the environment of a forked process. A process with a larger environment is started instead.
_ROOM = 16000


@functools.cache
def forkserver() -> "ForkServer":
    """Return this process's fork server, which ends with this process."""
    return ForkServer()


class ForkServer:
    """A client of the fork server process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {"PATH": os.defpath, "MALLOC_ARENA_MAX": "2", "ROOM": "x" * _ROOM}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-E", _SCRIPT],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd=_TESTS,
                env=environment,
                start_new_session=True,  # so that the server does not receive the ^C that a test sends
            )

    def run(
        self, *arguments: str, cwd: Path, env: Mapping[str, str], stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command line of forkjoin in a forked process.

        Without arguments, start the home's daemon if it does not run.
        """
        files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
        try:
            os.pwrite(files[0], stdin.encode(), 0)
            returncode = self._run(arguments, str(cwd), dict(env), files)
            stdout, stderr = (os.pread(file, os.fstat(file).st_size, 0).decode() for file in files[1:])
        finally:
            for file in files:
                os.close(file)
        return subprocess.CompletedProcess(["forkjoin", *arguments], returncode, stdout, stderr)

    def _run(self, arguments: Sequence[str], cwd: str, env: dict[str, str], files: list[int]) -> int:
        ended, theirs = os.pipe()
        try:
            request = json.dumps({"arguments": arguments, "cwd": cwd, "env": env}).encode()
            socket.send_fds(self._socket, [request], [*files, theirs])
        finally:
            os.close(theirs)
        with os.fdopen(ended) as answer:
            return int(answer.read())


def has_room(env: Mapping[str, str]) -> bool:
    """Return whether a process with this environment can be forked."""
    return len(_block([f"{name}={value}" for name, value in env.items()])) < _ROOM


class _ForkedDaemon:
    """A forked daemon with the methods of `Popen` that a command calls after it has started a daemon."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _serve() -> None:
    """Fork a command for each request on stdin, and write its exit code to a pipe."""
    requests = socket.socket(fileno=os.dup(0))
    children: dict[int, tuple[int, int]] = {}
    ready = select.poll()
    ready.register(requests, select.POLLIN)
    while True:
        for fd, _ in ready.poll():
            if fd == requests.fileno():
                message, files, _, _ = socket.recv_fds(requests, 4 * _ROOM, 4)
                if not message:
                    return
                pid = os.fork()
                if pid == 0:
                    _become_command(json.loads(message), files)
                for file in files[:3]:
                    os.close(file)
                child = os.pidfd_open(pid)
                children[child] = (pid, files[3])
                ready.register(child, select.POLLIN)
            else:
                pid, answer = children.pop(fd)
                ready.unregister(fd)
                os.close(fd)
                os.write(answer, b"%d" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(answer)


def _become_command(request: dict[str, Any], files: Sequence[int]) -> NoReturn:
    from forkjoin.__main__ import main
    from forkjoin.core.paths import find_home
    from forkjoin.transport import daemon_connection

    _become(request["arguments"], request["env"], request["cwd"], files[:3])
    _start_processes_with(functools.partial(_fork_daemon, subprocess.Popen))
    _exit_after(main if request["arguments"] else lambda: daemon_connection.connect(find_home()).close())


def _fork_daemon(popen: Callable[..., Any], argv: Sequence[str], **options: Any) -> Any:
    """Fork if the command is a daemon's. Start any other program with `popen`."""
    if tuple(argv[-len(_DAEMON) :]) != _DAEMON or not has_room(options["env"]):
        return popen(argv, **options)
    pid = os.fork()
    if pid:
        return _ForkedDaemon(pid)
    os.setsid()
    log = options["stdout"].fileno()
    _become(_DAEMON[2:], options["env"], str(options["cwd"]), [os.open(os.devnull, os.O_RDONLY), log, log])
    _write_over("arg", [*argv])
    _start_processes_with(popen)
    from forkjoin.__main__ import main

    return _exit_after(main)


def _start_processes_with(popen: Any) -> None:
    setattr(subprocess, "Popen", popen)  # noqa: B010 (mypy rejects an assignment to a class)


def _become(arguments: Sequence[str], env: Mapping[str, str], cwd: str, files: Sequence[int]) -> None:
    """Set this process's arguments, environment, working directory and standard files.

    All other files are closed.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    os.chdir(cwd)
    sys.argv = ["forkjoin", *arguments]
    os.environ.clear()
    os.environ.update(env)
    _write_over("env", [f"{name}={value}" for name, value in env.items()])


def _write_over(area: str, words: Sequence[str]) -> None:
    """Replace the arguments or the environment that /proc shows of this process.

    Fields 48 to 51 of /proc/self/stat hold their addresses (proc(5)).
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    first = {"arg": 45, "env": 47}[area]
    start, end = int(fields[first]), int(fields[first + 1])
    block = _block(words)
    assert len(block) <= end - start
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, block, len(block))


def _block(words: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def _exit_after(act: Callable[[], object]) -> NoReturn:
    """Call the function, then exit as Python does at the end of a program.

    The calling frames are not unwound, because their cleanup belongs to the parent process.
    """
    code = 1
    try:
        act()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # the interpreter also reports every exception at its exit
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main() -> None:
    for module in ("forkjoin.cli.app", "forkjoin.transport.socket_server", "forkjoin_tools.mcp_server"):
        importlib.import_module(module)
    gc.freeze()
    _serve()


if __name__ == "__main__":
    _main()
