"""A client of MCP 2026-07-28 that speaks to a real relay line by line and supports tasks."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.harness import RawRelay, first_answer

TASKS = "io.modelcontextprotocol/tasks"
Json = dict[str, Any]


class Modern(RawRelay):
    """A relay with methods that send requests of MCP 2026-07-28. Without `tasks` the client does not support tasks."""

    def __init__(self, where: Path, *, tasks: bool = True) -> None:
        super().__init__(where, CLAUDE_PROJECT_DIR=str(where), CLAUDE_CODE_SESSION_ID="session-1")
        self.extensions: Json = {TASKS: {}} if tasks else {}
        self.number = 0
        self._kept: deque[Json] = deque()

    def ask(self, method: str, **params: Any) -> int:
        """Send a request and return its id."""
        self.number += 1
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
            "io.modelcontextprotocol/clientCapabilities": {"extensions": self.extensions},
        }
        params["_meta"] = {**meta, **params.get("_meta", {})}
        self.send({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        return self.number

    def heard(self, matches: Callable[[Json], bool]) -> Json:
        """Return the first message that matches. Keep the other messages for later calls."""
        for message in self._kept:
            if matches(message):
                self._kept.remove(message)
                return message
        while not matches(message := self.answer()):
            self._kept.append(message)
        return message

    def result(self, number: int) -> Json:
        """Return the result of the request with this id, or its error."""
        answer = self.heard(lambda message: message.get("id") == number)
        found: Json = answer.get("result") or answer["error"]
        return found

    def request(self, method: str, **params: Any) -> Json:
        return self.result(self.ask(method, **params))

    def tool(self, name: str, **arguments: Any) -> Json:
        return self.request("tools/call", name=name, arguments=arguments)

    async def answered(self, name: str, **arguments: Any) -> Json:
        """Call a tool and return its structured content.

        If the tool runs as a task, wait for the task.
        """
        answer = self.tool(name, **arguments)
        result = await self.completed(answer["taskId"]) if answer["resultType"] == "task" else answer
        found: Json = result["structuredContent"]
        return found

    def spawn(self, *tasks: str) -> list[str]:
        answer = self.tool("spawn_agents", agents=[{"task": task} for task in tasks])
        return [agent["id"] for agent in answer["structuredContent"]["agents"]]

    def notification(self, method: str) -> Json:
        """Return the parameters of the next notification of this method."""
        params: Json = self.heard(lambda message: message.get("method") == method)["params"]
        return params

    async def completed(self, task: str) -> Json:
        """Poll a task until it is completed, and return its result."""

        async def look() -> Json:
            status = self.request("tasks/get", taskId=task)
            assert status["status"] in ("working", "completed"), status
            found: Json = status.get("result", {})
            return found

        return await first_answer(look)
