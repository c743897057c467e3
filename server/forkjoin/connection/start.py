"""Reaching the daemon from outside: connect to its socket, start it where none answers, say hello.

Standard library only: relay and command line both begin here.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, BinaryIO

from forkjoin.paths import SOCKET, Home
from forkjoin.version import PROTOCOL, __version__

if TYPE_CHECKING:
    import subprocess

#: How long a daemon may take from its start until it answers: a second, or a minute where memory is short.
START_S = 120.0
_PAUSE_S = 0.01
#: How often a connection that breaks off at once is tried again.
_TRIES = 5
_HELLO_LIMIT = 1024 * 1024
#: What marks an agent, or belongs to the client that started us: neither daemon nor shims may inherit it.
_MARKS = ("FORKJOIN_", "CLAUDE_CODE_", "CLAUDECODE", "GIT_")


class _BrokenError(Exception):
    """The connection broke off before the hello was answered."""


class DaemonError(Exception):
    """The daemon can't be reached or would not have us; the message says why."""


def greet(home: Home, kind: str, relay: str, folder: str | None = None) -> tuple[socket.socket, dict[str, Any]]:
    """A connection to the daemon, over which hello has been said, and the daemon's answer.

    The daemon is started if none answers. The hello is said from the working directory, or from `folder`.

    Raises:
        DaemonError: It did not come up, or said no in the words of the message.
    """
    for left in reversed(range(_TRIES)):
        connection = connect(home)
        try:
            return connection, hello(connection, kind, relay, folder)
        except _BrokenError as error:
            connection.close()  # that one was leaving; the next is found or started
            if not left:
                raise DaemonError(f"the daemon did not answer: {error}; see {home.log}") from error
    raise AssertionError


def connect(home: Home) -> socket.socket:
    """A connection to the daemon of this home, which is started first if none answers.

    Raises:
        DaemonError: It did not come up; the message ends with the last lines of its log.
    """
    home.make()
    found = try_connect(home)
    if found is not None:
        return found
    with _lock(home):
        found = try_connect(home)  # two that start at once start one daemon
        return found if found is not None else _start(home)


def try_connect(home: Home) -> socket.socket | None:
    """A connection to the daemon, if one answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(home.state)  # a socket's path may have 108 bytes; relative to its folder every one is short
        connection.connect(SOCKET)
    except OSError:
        connection.close()
        return None
    finally:
        os.fchdir(here)
        os.close(here)
    return connection


@contextlib.contextmanager
def _lock(home: Home) -> Generator[None]:
    lock = os.open(home.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _start(home: Home) -> socket.socket:
    """Start a daemon and connect to it; once more where it gave way to one that was still leaving, or was killed."""
    with home.log.open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        began = log.tell()
        give_up = time.monotonic() + START_S
        daemon = _launch(home, log)
        while time.monotonic() < give_up:
            found = try_connect(home)
            if found is not None:
                daemon.returncode = 0  # it is meant to outlive us: nobody waits for it
                return found
            if daemon.poll() is not None:
                if daemon.returncode > 0:
                    break  # it has said why
                daemon = _launch(home, log)
            time.sleep(_PAUSE_S)
    with home.log.open("rb") as log:
        log.seek(began)
        words = log.read()[-2000:].decode(errors="replace").strip()
    raise DaemonError(f"the daemon did not come up ({home.log}):\n{words}")


def _launch(home: Home, log: BinaryIO) -> "subprocess.Popen[bytes]":
    import subprocess  # a sixth of the relay's start, and most relays find a daemon

    return subprocess.Popen(
        daemon_command(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=home.state,
        env=daemon_environment(home),
        start_new_session=True,
    )


def daemon_command() -> list[str]:
    return [sys.executable, "-P", "-E", "-m", "forkjoin", "daemon", "run"]


def daemon_environment(home: Home) -> dict[str, str]:
    """Our environment, without the marks of whoever started us; stopping an agent must not end the daemon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_MARKS)}
    return {**kept, **home.variables, "FORKJOIN_KEEPER": "1"}


def draw_number() -> str:
    """The number that is drawn for a relay: with a request's id it names a call."""
    return os.urandom(8).hex()


def hello(connection: socket.socket, kind: str, relay: str, folder: str | None = None) -> dict[str, Any]:
    """Say hello over a connection; the daemon's answer.

    Raises:
        DaemonError: It said no, in the words of the message.
    """
    environment = dict(os.environ)
    greeting = {
        "protocol": PROTOCOL,
        "version": __version__,
        "kind": kind,
        "relay": relay,
        "cwd": folder or _working_directory(),
        "project_dir": environment.get("CLAUDE_PROJECT_DIR", ""),
        "session_id": environment.get("CLAUDE_CODE_SESSION_ID", ""),
        "token": environment.get("FORKJOIN_TOKEN", ""),
        "environment": environment,
    }
    line = json.dumps(greeting).encode() + b"\n"
    if len(line) > _HELLO_LIMIT:
        raise DaemonError("the environment is larger than 1 MB")
    try:
        connection.sendall(line, socket.MSG_NOSIGNAL)
        answer: dict[str, Any] = json.loads(_read_line(connection))
    except (OSError, ValueError) as error:
        raise _BrokenError(str(error)) from error
    if not answer.get("ok"):
        raise DaemonError(str(answer.get("error")))
    return answer


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return "/"


def _read_line(connection: socket.socket) -> bytes:
    """One line, byte by byte: what follows it is not ours to take."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ValueError("it closed the connection")
        line += byte
    return line
