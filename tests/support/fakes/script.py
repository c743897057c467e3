"""Scripts for a fake model: the requests that a script receives, and its answers of texts and tool uses."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    name: str
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])


Block = Text | ToolUse


@dataclass(frozen=True, slots=True)
class ToolResult:
    text: str
    is_error: bool


class ApiError(Exception):
    """An error that the API answers with if the script raises it."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}


class Asked:
    """A request to /v1/messages."""

    def __init__(self, body: JsonObject) -> None:
        self.body = body
        self.model = str(body.get("model", ""))
        self.system = "\n".join(_texts(body.get("system")))
        self.tools = [str(tool.get("name", "")) for tool in _objects(body.get("tools"))]
        self._messages = _objects(body.get("messages"))

    @property
    def prompt(self) -> list[str]:
        """The texts before the model's first answer. One of them is the user's own prompt.

        The texts are stripped: after an error claude appends a line end and a text of its own.
        """
        first = itertools.takewhile(lambda message: message.get("role") != "assistant", self._messages)
        return [text.strip() for message in first for text in _texts(message.get("content"))]

    @property
    def answers(self) -> int:
        """The number of the model's answers so far."""
        return sum(message.get("role") == "assistant" for message in self._messages)

    @property
    def results(self) -> list[ToolResult]:
        """The results of all tool uses so far, in order."""
        blocks = (block for message in self._messages for block in _objects(message.get("content")))
        return [
            ToolResult("\n".join(_texts(block.get("content"))), bool(block.get("is_error")))
            for block in blocks
            if block.get("type") == "tool_result"
        ]


def _objects(value: object) -> list[JsonObject]:
    found = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("JsonObject", item) for item in found if isinstance(item, dict)]


def _texts(content: object) -> list[str]:
    """Return the texts in a message's content, which is a string or a list of blocks."""
    return [content] if isinstance(content, str) else [str(block.get("text", "")) for block in _objects(content)]


Script = Callable[[Asked], Sequence[Block]]


def in_turn(*answers: Sequence[Block]) -> Script:
    """Return a script that gives these answers in order in every conversation."""
    return lambda asked: answers[asked.answers]


def by_prompt(scripts: Mapping[str, Script]) -> Script:
    """Return a script that follows the script of each conversation's first prompt."""

    def script(asked: Asked) -> Sequence[Block]:
        return next(scripts[text] for text in asked.prompt if text in scripts)(asked)

    return script
