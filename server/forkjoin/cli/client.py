"""The command line's own MCP client: the tools over the daemon's socket, without the 0.6 s that importing mcp costs."""

import json
from typing import Any

from forkjoin.connection import start
from forkjoin.error import CallerError
from forkjoin.paths import Home
from forkjoin.version import __version__

#: Any version with a handshake does; this one has structured results.
_MCP_VERSION = "2025-06-18"


class Client:
    """A connection to the daemon, which is started if none answers; a context manager.

    Calls are for the repository around `folder`: the working directory, unless another is given.
    """

    def __init__(self, home: Home, folder: str | None = None) -> None:
        self._socket, self.daemon = start.greet(home, "cli", start.draw_number(), folder)
        self._file = self._socket.makefile("rb")
        self._number = 0
        self._request(
            "initialize",
            {
                "protocolVersion": _MCP_VERSION,
                "capabilities": {},
                "clientInfo": {"name": "forkjoin", "version": __version__},
            },
        )
        self._send({"method": "notifications/initialized"})

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def call(self, tool: str, **arguments: Any) -> Any:
        """What the tool answers: a dict, or text. Arguments that are None are left out.

        Raises:
            CallerError: The tool refused; the message is its own.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        result = self._request("tools/call", {"name": tool, "arguments": given})
        text = "".join(part.get("text", "") for part in result["content"])
        if result.get("isError"):
            raise CallerError(text)
        return result.get("structuredContent", text)

    def _request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while line := self._file.readline():
            message = json.loads(line)
            if message.get("id") == self._number:
                if "error" in message:
                    raise CallerError(str(message["error"]["message"]))
                result: dict[str, Any] = message["result"]
                return result
        raise start.DaemonError("the daemon went away; run the command again")

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError) as error:
            raise start.DaemonError("the daemon went away; run the command again") from error
