"""The command line's own MCP client: the tools over the daemon's socket, without the 0.6 s that importing mcp costs."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from forkjoin.core.error import CallerError
from forkjoin.core.paths import find_home
from forkjoin.transport import daemon_connection
from forkjoin.version import __version__

#: Any version with a handshake does; this one has structured results.
_MCP_VERSION = "2025-06-18"
#: How often a daemon that goes away before it has answered is followed by another.
_TRIES = 5

T = TypeVar("T")


def call_tool(tool: str, **arguments: Any) -> Any:
    """What a tool answers over a connection of its own; as `Client.call`."""
    with Client() as client:
        return client.call(tool, **arguments)


class Client:
    """A connection to the daemon, which is started if none answers; a context manager.

    Calls are for the repository around `folder`: the working directory, unless another is given. Where the daemon goes
    away, they go on with the next.
    """

    _connected = False

    def __init__(self, folder: str | None = None) -> None:
        self._home, self._folder = find_home(), folder
        self._relay = daemon_connection.new_relay_id()
        self._number = 0
        self._retry(lambda: None)

    def _connect(self) -> None:
        self._socket, self.daemon = daemon_connection.connect_and_greet(self._home, "cli", self._relay, self._folder)
        self._file = self._socket.makefile("rb")
        self._connected = True
        client = {"name": "forkjoin", "version": __version__}
        self._exchange(0, "initialize", {"protocolVersion": _MCP_VERSION, "capabilities": {}, "clientInfo": client})
        self._send({"method": "notifications/initialized"})

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        self._connected = False
        with suppress(AttributeError):  # it never was
            self._file.close()
            self._socket.close()

    def call(self, tool: str, **arguments: Any) -> Any:
        """What the tool answers: a dict, or text. Arguments that are None are left out.

        Raises:
            CallerError: The tool refused, and the message is its own; or what was given is no text.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise CallerError("what was given is not UTF-8; nothing was done") from None
        self._number += 1
        result = self._retry(lambda: self._exchange(self._number, "tools/call", {"name": tool, "arguments": given}))
        text = "".join(part.get("text", "") for part in result["content"])
        if result.get("isError"):
            raise CallerError(text)
        return result.get("structuredContent", text)

    def end_daemon(self) -> None:
        """End the daemon; agents live on."""
        daemon_connection.end_daemon(self._socket)

    def _retry(self, act: Callable[[], T]) -> T:
        """Do this with a daemon, and again with the next when it goes: a call is known by its number, and done once."""
        for _ in range(_TRIES):
            try:
                if not self._connected:
                    self._connect()
                return act()
            except (ConnectionError, EOFError):
                self._disconnect()
        raise daemon_connection.DaemonError("the daemon keeps ending. See forkjoin daemon logs")

    def _exchange(self, number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._send({"id": number, "method": method, "params": params})
        while (line := self._file.readline()).endswith(b"\n"):
            message = json.loads(line)
            if "method" not in message and message["id"] in (number, None):  # none: it could not be read at all
                if "error" in message:
                    raise CallerError(str(message["error"]["message"]))
                result: dict[str, Any] = message["result"]
                return result
        raise EOFError

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
