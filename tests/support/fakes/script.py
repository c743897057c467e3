"""What a scripted model is asked, and what it answers: blocks of text, and uses of tools."""

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
    """A script raises it for the API to answer with an error."""

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
        """The texts that the model was given before its first answer: the user's own is one of them.

        Where that answer was an error, claude has put its own words after it, and a line end between.
        """
        first = itertools.takewhile(lambda message: message.get("role") != "assistant", self._messages)
        return [text.strip() for message in first for text in _texts(message.get("content"))]

    @property
    def answers(self) -> int:
        """How many times the model has answered so far."""
        return sum(message.get("role") == "assistant" for message in self._messages)

    @property
    def results(self) -> list[ToolResult]:
        """What the tools answered so far, in order."""
        blocks = (block for message in self._messages for block in _objects(message.get("content")))
        return [
            ToolResult("\n".join(_texts(block.get("content"))), bool(block.get("is_error")))
            for block in blocks
            if block.get("type") == "tool_result"
        ]


def _objects(value: object) -> list[JsonObject]:
    found = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("JsonObject", one) for one in found if isinstance(one, dict)]


def _texts(content: object) -> list[str]:
    """The texts in content, which is a string or blocks."""
    return [content] if isinstance(content, str) else [str(block.get("text", "")) for block in _objects(content)]


Script = Callable[[Asked], Sequence[Block]]


def in_turn(*answers: Sequence[Block]) -> Script:
    """Give these answers, one after another, in every conversation."""
    return lambda asked: answers[asked.answers]


def by_prompt(scripts: Mapping[str, Script]) -> Script:
    """Follow the script of the prompt that a conversation began with."""

    def script(asked: Asked) -> Sequence[Block]:
        return next(scripts[text] for text in asked.prompt if text in scripts)(asked)

    return script
