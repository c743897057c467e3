"""Reaching the daemon from outside: connect to its socket, start it where none answers, say hello.

The newest version wins: a daemon that is older than what would be started in its place is ended, which its agents
survive, and followed by that. A newer one is left alone: it serves older relays. Standard library only: relay and
command line both begin here.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from forkjoin import version
from forkjoin.core.paths import SOCKET, Home
from forkjoin.version import PROTOCOL, __version__

if TYPE_CHECKING:
    import subprocess

#: How long a daemon may take from its start until it answers: a second, or a minute where there is no memory left.
START_S = 120.0
#: How long one that was told to leave may take before it is killed.
_LEAVE_S = 15.0
_PAUSE_S = 0.01
#: How often a connection that breaks off at once is tried again.
_TRIES = 20
#: Bytes of the hello, which holds the environment.
HELLO_LIMIT = 1024 * 1024
#: The longest message: a hundred specs with tasks of some size, or one of the largest allowed, escaped.
LINE_LIMIT = 32 * 1024 * 1024
#: For the daemon, whose many threads come and go: else each new one begins a heap of its own, which stays (mallopt(3)).
_FRUGAL = {"MALLOC_ARENA_MAX": "2"}
#: What marks an agent, or belongs to the client that started us: neither daemon nor shims may inherit it.
_MARKS = ("FORKJOIN_", "CLAUDE_CODE_", "CLAUDECODE", "GIT_")


class DaemonError(Exception):
    """The daemon can't be reached or would not have us; the message says why."""


class RefusedError(DaemonError):
    """It is there, and would not have us."""


def connect_and_greet(
    home: Home, kind: str, relay: str, folder: str | None = None
) -> tuple[socket.socket, dict[str, Any]]:
    """A connection to the daemon, over which hello has been said, and the daemon's answer.

    The daemon is started if none answers. The hello is said from the working directory, or from `folder`.

    Raises:
        DaemonError: It did not come up, or said no in the words of the message.
    """
    for _ in range(_TRIES):
        connection = connect(home)
        try:
            answer = say_hello(connection, kind, relay, folder)
            if _is_outdated(str(answer.get("version", "0"))):
                _replace(home, connection)
            elif answer.get("ok"):
                return connection, answer
            else:
                raise RefusedError(str(answer.get("error")))  # noqa: TRY301
        except ConnectionError:  # that one was leaving; the next is found or started
            connection.close()
        except BaseException:
            connection.close()
            raise
    raise DaemonError(f"the daemon keeps going away before it has answered; see {home.log}")


def _is_outdated(daemon: str) -> bool:
    """Whether a daemon of this version is older than the one that would follow it: what lies on the disk now.

    That may be older than we are, who began before it was put there; to end the daemon for it would never cease.
    """
    if _order(daemon) >= _order(__version__):
        return False
    installed = re.search(r'__version__ = "(.+?)"', Path(version.__file__).read_text("utf-8"))
    return installed is not None and _order(daemon) < _order(installed[1])


def _order(version: str) -> list[tuple[int, int, str]]:
    """Where a version stands among others: 0.9 before 0.10, 1.0rc1 before 1.0, and that before 1.0.1."""
    parts = re.findall(r"\d+|[a-z]+", version)
    return [*((1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts), (0, 0, "")]


def end_daemon(connection: socket.socket) -> None:
    """End the daemon at the other end, and return once it is gone. Agents live on: it is as safe as `kill -9` is.

    Raises:
        DaemonError: It runs where it can't be seen from here.
    """
    try:
        daemon = os.pidfd_open(peer_of(connection)[0])
    except OSError as error:
        raise DaemonError(
            f"the daemon can't be ended from here ({error.strerror}): do so where it was started"
        ) from error
    gone = select.poll()
    gone.register(connection, 0)  # a hang-up is told unasked, also before what it said last was read
    try:
        if not gone.poll(0):  # else its pid may be another's by now
            signal.pidfd_send_signal(daemon, signal.SIGTERM)
            if not select.select([daemon], [], [], _LEAVE_S)[0]:
                signal.pidfd_send_signal(daemon, signal.SIGKILL)
                select.select([daemon], [], [])
    finally:
        os.close(daemon)
        connection.close()


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """The process at the other end, and its user (SO_PEERCRED of unix(7)): who listened, or who connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def connect(home: Home) -> socket.socket:
    """A connection to the daemon of this home, which is started first if none answers.

    Raises:
        DaemonError: It did not come up; the message ends with the last lines of its log.
    """
    home.make()
    found = try_connect(home)
    if found is None:
        with _lock(home):
            found = try_connect(home) or _start(home)  # two that start at once start one daemon
    return found


def _replace(home: Home, connection: socket.socket) -> None:
    """End a daemon, and start the next; no older relay starts one of its own meanwhile."""
    with _lock(home):
        end_daemon(connection)
        (try_connect(home) or _start(home)).close()


def try_connect(home: Home) -> socket.socket | None:
    """A connection to the daemon, if one answers."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(home.state, os.O_PATH)
        try:
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")  # short, as a socket's path must be (unix(7))
        finally:
            os.close(folder)
    except OSError:
        connection.close()
        return None
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
    raise DaemonError(f"the daemon did not come up ({home.log}):\n{_last_words(home, began)}")


def _last_words(home: Home, began: int) -> str:
    """What a daemon that did not come up had to say."""
    from forkjoin.core import daemon_log  # logging is a third of the relay's start

    with home.log.open("rb") as log:
        log.seek(began if began <= home.log.stat().st_size else 0)  # it may have begun a new one
        entries = log.read()[-8000:].decode(errors="replace").splitlines()
    return "\n".join(filter(None, map(daemon_log.complaint, entries)))[-2000:] or "it said nothing"


def _launch(home: Home, log: BinaryIO) -> "subprocess.Popen[bytes]":
    import subprocess  # a sixth of the relay's start, and most relays find a daemon

    kept = {name: value for name, value in os.environ.items() if not name.startswith(_MARKS)}
    return subprocess.Popen(
        daemon_command(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=home.state,
        env={**_FRUGAL, **kept, **home.variables, "FORKJOIN_KEEPER": "1"},  # whoever stops an agent lets a keeper be
        start_new_session=True,
    )


def daemon_command() -> list[str]:
    return [sys.executable, "-P", "-E", "-m", "forkjoin", "daemon", "run"]


def relay_command() -> tuple[str, ...]:
    """The relay, with the Python that forkjoin is installed in; nothing of a repository is imported in its place."""
    return (sys.executable, "-P", "-E", "-m", "forkjoin", "mcp")


def new_relay_id() -> str:
    """The number that is drawn for a relay: with a request's id it names a call."""
    return os.urandom(8).hex()


def say_hello(connection: socket.socket, kind: str, relay: str, folder: str | None = None) -> dict[str, Any]:
    """Say hello over a connection; the daemon's answer, which may be a no in words.

    Raises:
        DaemonError: It is another user's, or hangs, or our environment is too large.
        ConnectionError: It went before it had answered.
    """
    if peer_of(connection)[1] != os.getuid():
        raise DaemonError("the daemon is another user's; set FORKJOIN_HOME to a folder of your own")
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
    if len(line) > HELLO_LIMIT:
        raise DaemonError("the environment is larger than 1 MB: unset what is large in it, and call again")
    try:
        connection.settimeout(START_S)  # one that hangs is not waited for, for ever
        connection.sendall(line, socket.MSG_NOSIGNAL)
        answer: dict[str, Any] = json.loads(_read_line(connection))
        connection.settimeout(None)
    except TimeoutError as error:
        why = "the daemon hangs: end it with `forkjoin daemon stop --now` (agents go on), and call again"
        raise DaemonError(why) from error
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
            raise ConnectionResetError
        line += byte
    return line
