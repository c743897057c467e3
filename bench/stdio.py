"""A minimal MCP client, so that a measurement contains almost nothing but the server."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any


class Stdio:
    """A server process and its pipes.

    Attributes:
        began: When the process was started, by `time.perf_counter`.
    """

    def __init__(self, argv: list[str], environment: dict[str, str], folder: Path) -> None:
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=folder, bufsize=0
        )
        self._number = 0

    def __enter__(self) -> "Stdio":
        parameters = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "0"},
        }
        self.ask("initialize", parameters)
        self._send({"method": "notifications/initialized"})
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        """Send a request. Return its result."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        assert self.process.stdout
        while line := self.process.stdout.readline():
            answer = json.loads(line)
            if answer.get("id") == self._number:
                return answer["result"]
        raise RuntimeError("the server closed its stdout before it answered")

    def call(self, tool: str, **arguments: Any) -> Any:
        result = self.ask("tools/call", {"name": tool, "arguments": arguments})
        if result.get("isError"):
            raise RuntimeError(result["content"])
        return result["structuredContent"]

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
