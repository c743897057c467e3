"""Connections of the relay and the command line to the daemon, which is started if needed.

A daemon that is older than the installed forkjoin is ended, which its agents survive, and replaced. A newer daemon is
used as it is, since it also serves older relays. This module imports only the standard library.
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

#: Seconds that a daemon may take to start and answer. Usually it takes one, but a minute if memory is short.
START_S = 120.0
#: Seconds that a daemon may take to end before it is killed.
_END_S = 15.0
_PAUSE_S = 0.01
#: Maximal daemons in a row that close the connection before they answer the hello, or are replaced.
_TRIES = 20
#: Maximal bytes of a hello. It contains the caller's environment.
HELLO_LIMIT = 1024 * 1024
#: Maximal bytes of a message. A hundred specs with large tasks fit, and so does one task of maximal size as JSON.
LINE_LIMIT = 32 * 1024 * 1024
#: Variables that save memory in the daemon: without MALLOC_ARENA_MAX each thread may add a heap that is never returned
#: to the system (mallopt(3)).
_MALLOC_VARIABLES = {"MALLOC_ARENA_MAX": "2"}
#: Prefixes of variables that mark an agent's process, belong to Claude Code, or change what git does. The daemon and
#: its shims must not inherit them.
_CLIENT_VARIABLES = ("FORKJOIN_", "CLAUDE_CODE_", "CLAUDECODE", "GIT_")


class DaemonError(Exception):
    """The daemon can't be reached, or refused the connection."""


class RefusedError(DaemonError):
    """The daemon refused the connection."""


def connect_and_greet(
    home: Home, kind: str, relay: str, folder: str | None = None
) -> tuple[socket.socket, dict[str, Any]]:
    """Connect to the daemon, start it if needed, and exchange hellos.

    Args:
        kind: "relay" or "cli".
        relay: The id of the relay or of the command, from `new_relay_id`.
        folder: The folder whose repository the calls are for. Default: the working directory.

    Returns: The connection, and the daemon's answer to the hello.

    Raises:
        RefusedError: The daemon refused the connection.
        DaemonError: The daemon did not start, did not answer in time, belongs to another user, or can't be replaced.
    """
    for _ in range(_TRIES):
        connection = connect(home)
        try:
            answer = say_hello(connection, kind, relay, folder)
            if _is_outdated(str(answer.get("version", "0"))):
                _replace_daemon(home, connection)
            elif answer.get("ok"):
                return connection, answer
            else:
                raise RefusedError(str(answer.get("error")))  # noqa: TRY301
        except ConnectionError:  # this daemon was ending, so the next round finds or starts another one
            connection.close()
        except BaseException:
            connection.close()
            raise
    raise DaemonError(f"the daemon keeps ending before it answers. See {home.log}")


def _is_outdated(daemon: str) -> bool:
    """Return whether a daemon of this version should be replaced.

    It should be if it is older than both this process and the installed forkjoin. After a downgrade, the installed
    version is older than a process that was started before: such a process must not replace the daemon of the
    installed version, since the next daemon would have that version again.
    """
    if _order(daemon) >= _order(__version__):
        return False
    installed = re.search(r'__version__ = "(.+?)"', Path(version.__file__).read_text("utf-8"))
    return installed is not None and _order(daemon) < _order(installed[1])


def _order(version: str) -> list[tuple[int, int, str]]:
    """Return a sort key for a version: 0.9 is before 0.10, and 1.0rc1 before 1.0."""
    parts = re.findall(r"\d+|[a-z]+", version)
    return [*((1, int(part), "") if part.isdigit() else (-1, 0, part) for part in parts), (0, 0, "")]


def end_daemon(connection: socket.socket) -> None:
    """End the daemon at the other end of a connection, which is closed. Agents go on.

    Blocks until the daemon has ended. A daemon that has not ended after `_END_S` seconds is killed.

    Raises:
        DaemonError: The daemon's process can't be seen from here, e.g. because it runs in a container.
    """
    try:
        daemon = os.pidfd_open(peer_of(connection)[0])
    except OSError as error:
        raise DaemonError(
            f"the daemon can't be ended from here ({error.strerror}). End it in the container where it was started"
        ) from error
    gone = select.poll()
    gone.register(connection, 0)  # poll reports a hang-up although unread data is left; recv would return that data
    try:
        if not gone.poll(0):  # after a hang-up, the pidfd may be of another process, which got the daemon's pid
            signal.pidfd_send_signal(daemon, signal.SIGTERM)
            if not select.select([daemon], [], [], _END_S)[0]:
                signal.pidfd_send_signal(daemon, signal.SIGKILL)
                select.select([daemon], [], [])
    finally:
        os.close(daemon)
        connection.close()


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Return the pid and user id of the process at the other end.

    Source: the socket option SO_PEERCRED of unix(7).
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


def connect(home: Home) -> socket.socket:
    """Connect to the daemon, and start it first if needed.

    Raises:
        DaemonError: The daemon did not start. The message ends with the errors that the daemon logged.
    """
    home.make()
    found = try_connect(home)
    if found is None:
        with _lock(home):
            found = try_connect(home) or _start_daemon(home)  # another process may have started it before the lock
    return found


def _replace_daemon(home: Home, connection: socket.socket) -> None:
    """End the daemon of this connection, and start one of the installed version.

    The start lock is held until the new daemon runs, so that no older relay can start a daemon of its own version.
    """
    with _lock(home):
        end_daemon(connection)
        (try_connect(home) or _start_daemon(home)).close()


def try_connect(home: Home) -> socket.socket | None:
    """Return a connection to the home's daemon, or `None` if no daemon is running."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = os.open(home.state, os.O_PATH)
        try:
            # The path of a home may be longer than a socket's address allows (108 bytes, unix(7)).
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
    except OSError:
        connection.close()
        return None
    return connection


@contextlib.contextmanager
def _lock(home: Home) -> Generator[None]:
    """Hold the lock under which a daemon is started or replaced.

    Blocks while another process holds it.
    """
    lock = os.open(home.start_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _start_daemon(home: Home) -> socket.socket:
    """Start a daemon and return a connection to it.

    If the daemon is killed, or ends with exit code 0 because the previous daemon still holds the daemon's lock, another
    one is started.

    Raises:
        DaemonError: The daemon exited with an error, or accepted no connection within `START_S` seconds.
    """
    with home.log.open("ab") as log:
        os.fchmod(log.fileno(), 0o600)
        began = log.tell()
        give_up = time.monotonic() + START_S
        daemon = _launch(home, log)
        while time.monotonic() < give_up:
            found = try_connect(home)
            if found is not None:
                daemon.returncode = 0  # otherwise Popen would warn that the program is still running
                return found
            if daemon.poll() is not None:
                if daemon.returncode > 0:
                    break  # another daemon would fail in the same way
                daemon = _launch(home, log)
            time.sleep(_PAUSE_S)
    raise DaemonError(f"the daemon did not start ({home.log}):\n{_last_errors(home, began)}")


def _last_errors(home: Home, began: int) -> str:
    """Return the last errors logged after byte `began`, or a note that there are none."""
    from forkjoin.core import daemon_log  # importing logging takes a third of the relay's start

    with home.log.open("rb") as log:
        log.seek(began if began <= home.log.stat().st_size else 0)  # the log may have been rotated
        entries = log.read()[-8000:].decode(errors="replace").splitlines()
    return "\n".join(filter(None, map(daemon_log.complaint, entries)))[-2000:] or "it logged nothing"


def _launch(home: Home, log: BinaryIO) -> "subprocess.Popen[bytes]":
    """Start a daemon in its own session, without `_CLIENT_VARIABLES`."""
    import subprocess  # importing it takes a sixth of the relay's start, and most relays find a daemon

    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CLIENT_VARIABLES)}
    return subprocess.Popen(
        daemon_command(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=home.state,
        # FORKJOIN_KEEPER: if an agent's command starts the daemon, stopping the agent must not end the daemon.
        env={**_MALLOC_VARIABLES, **kept, **home.variables, "FORKJOIN_KEEPER": "1"},
        start_new_session=True,
    )


def daemon_command() -> list[str]:
    """Return the command that runs a daemon in the foreground."""
    return [sys.executable, "-P", "-E", "-m", "forkjoin", "daemon", "run"]


def relay_command() -> tuple[str, ...]:
    """Return the command that runs the relay.

    With its options, Python imports no module from the working directory or PYTHONPATH.
    """
    return (sys.executable, "-P", "-E", "-m", "forkjoin", "mcp")


def new_relay_id() -> str:
    """Return a random id for a relay or a command.

    The daemon recognizes a repeated call by this id and the request's id.
    """
    return os.urandom(8).hex()


def say_hello(connection: socket.socket, kind: str, relay: str, folder: str | None = None) -> dict[str, Any]:
    """Send a hello, and return the daemon's answer, which may be a refusal.

    Raises:
        DaemonError: The daemon belongs to another user or hangs, or the environment is too large.
        ConnectionError: The daemon ended before it answered.
    """
    if peer_of(connection)[1] != os.getuid():
        raise DaemonError("the daemon belongs to another user. Set FORKJOIN_HOME to a folder of your own")
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
        raise DaemonError("the environment is larger than 1 MB. Unset large variables, and call again")
    try:
        connection.settimeout(START_S)  # since a daemon that hangs never answers
        connection.sendall(line, socket.MSG_NOSIGNAL)
        answer: dict[str, Any] = json.loads(_receive_line(connection))
        connection.settimeout(None)
    except TimeoutError as error:
        message = "the daemon hangs. End it with `forkjoin daemon stop --now` (agents go on), and call again"
        raise DaemonError(message) from error
    return answer


def _working_directory() -> str:
    """Return the working directory, or "/" if it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return "/"


def _receive_line(connection: socket.socket) -> bytes:
    """Return the next line.

    It is read byte by byte, so that the MCP messages after it stay in the socket.

    Raises:
        ConnectionResetError: The connection was closed before the line ended.
    """
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionResetError
        line += byte
    return line
