"""A scripted Anthropic Messages API on loopback, for vendors' real programs to speak to.

A script is a function from what was asked to the blocks of the answer. It is asked only by requests that offer tools:
what a program asks on the side (titles, topics, a quota) gets a dull answer. Every request is kept, to be measured.
"""

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
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
        """The texts that the model was given before its first answer: the user's own is one of them."""
        first = itertools.takewhile(lambda message: message.get("role") != "assistant", self._messages)
        return [text for message in first for text in _texts(message.get("content"))]

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


Script = Callable[[Asked], Sequence[Block]]


def in_turn(*answers: Sequence[Block]) -> Script:
    """Give these answers, one after another, in every conversation."""
    return lambda asked: answers[asked.answers]


def by_prompt(scripts: Mapping[str, Script]) -> Script:
    """Follow the script of the prompt that a conversation began with."""

    def script(asked: Asked) -> Sequence[Block]:
        return next(scripts[text] for text in asked.prompt if text in scripts)(asked)

    return script


def _objects(value: object) -> list[JsonObject]:
    found = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("JsonObject", one) for one in found if isinstance(one, dict)]


def _texts(content: object) -> list[str]:
    """The texts in content, which is a string or blocks."""
    return [content] if isinstance(content, str) else [str(block.get("text", "")) for block in _objects(content)]


# -- answering

_numbers = itertools.count(1)


def _message(model: str, blocks: Sequence[Block]) -> JsonObject:
    uses = any(isinstance(block, ToolUse) for block in blocks)
    return {
        "id": f"msg_{next(_numbers):06}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [_block(block) for block in blocks],
        "stop_reason": "tool_use" if uses else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 100,
            "output_tokens": 10,
            "cache_read_input_tokens": 1000,
            "cache_creation_input_tokens": 0,
        },
    }


def _block(block: Block) -> JsonObject:
    match block:
        case Text(text):
            return {"type": "text", "text": text}
        case ToolUse(name, given):
            return {"type": "tool_use", "id": f"toolu_{next(_numbers):06}", "name": name, "input": dict(given)}


def _stream(message: JsonObject) -> Iterator[JsonObject]:
    """The message as the events that the API streams."""
    beginning = {"content": [], "stop_reason": None, "usage": message["usage"] | {"output_tokens": 1}}
    yield {"type": "message_start", "message": message | beginning}
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            start = block | {"text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            start = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": start}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": message["usage"]}
    yield {"type": "message_stop"}


# -- serving


class MessagesApi:
    """The API, at `url`, while it is served."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.script: Script = in_turn()
        self.asked: list[Asked] = []  #: what the script was asked
        self.others: list[str] = []  #: method and path of everything else

    def answer(self, asked: Asked) -> Sequence[Block]:
        if not asked.tools:
            self.others.append(f"side request: {asked.system[:80]!r}")
            return [Text("ok")]
        self.asked.append(asked)
        return self.script(asked)


class _Handler(BaseHTTPRequestHandler):
    api: MessagesApi
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        match self.path.partition("?")[0]:
            case "/v1/messages":
                self._answer(Asked(body))
            case "/v1/messages/count_tokens":
                self._send(200, {"input_tokens": len(json.dumps(body)) // 4})
            case _:
                self._not_found()

    def do_GET(self) -> None:
        self._not_found()

    def do_HEAD(self) -> None:
        self._not_found()

    def do_CONNECT(self) -> None:
        """Somebody takes us for a proxy, and wants to go beyond loopback."""
        self._not_found()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""

    def _answer(self, asked: Asked) -> None:
        try:
            message = _message(asked.model, self.api.answer(asked))
        except ApiError as error:
            self._send(error.status, error.body)
        except Exception as error:  # so that the program, and whoever reads its log, learns of a script's fault
            self._send(400, ApiError(400, "invalid_request_error", f"the script failed: {error!r}").body)
        else:
            if asked.body.get("stream"):
                events = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _stream(message))
                self._write(200, "text/event-stream", "".join(events).encode())
            else:
                self._send(200, message)

    def _not_found(self) -> None:
        self.api.others.append(f"{self.command} {self.path}")
        self._send(404, ApiError(404, "not_found_error", self.path).body)

    def _send(self, status: int, content: JsonObject) -> None:
        self._write(status, "application/json", json.dumps(content).encode())

    def _write(self, status: int, kind: str, content: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # whoever asked was stopped


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a script may hold an answer back


@contextmanager
def serve() -> Iterator[MessagesApi]:
    """Serve the API on a port of loopback."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        api = MessagesApi(f"http://127.0.0.1:{server.server_address[1]}")
        setattr(handler, "api", api)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
