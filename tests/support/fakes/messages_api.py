"""A scripted Anthropic Messages API on loopback, for vendors' real programs.

Only requests that offer tools reach the script. Every other request for a message (titles, topics, a quota) gets the
answer "ok". All requests are recorded, so that tests can measure them.
"""

import itertools
import json
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.fakes.script import ApiError, Asked, Block, JsonObject, Script, Text, ToolUse, in_turn

#: The usage that every answer reports.
USAGE = {
    "input_tokens": 100,
    "output_tokens": 10,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 0,
}

_numbers = itertools.count(1)


@contextmanager
def serve() -> Generator["MessagesApi"]:
    """Serve the API on a free port of loopback while the context is open."""
    with MessagesApi() as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield api
        finally:
            api.shutdown()
            thread.join()


class MessagesApi(ThreadingHTTPServer):
    """The API's HTTP server. Its address is `url`; `script` determines its answers."""

    daemon_threads = True
    block_on_close = False  # a script may block until the test releases it

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.script: Script = in_turn()
        self.asked: list[Asked] = []  #: the requests that the script has answered
        self.others: list[
            str
        ] = []  #: other requests: method and path, or the first 100 characters of the system prompt

    def answer(self, asked: Asked) -> JsonObject:
        """Return the script's answer, or "ok" if the request offers no tools."""
        if asked.tools:
            self.asked.append(asked)
            return _message(asked.model, self.script(asked))
        self.others.append(asked.system[:100])
        return _message(asked.model, [Text("ok")])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body: JsonObject = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        match self.path.partition("?")[0]:
            case "/v1/messages":
                self._answer(Asked(body))
            case "/v1/messages/count_tokens":
                self._send(200, {"input_tokens": len(json.dumps(body)) // 4})
            case _:
                self._not_found()

    def _not_found(self) -> None:
        self._api.others.append(f"{self.command} {self.path}")
        self._send(404, ApiError(404, "not_found_error", self.path).body)

    do_GET = do_HEAD = _not_found  # noqa: N815
    do_CONNECT = _not_found  # noqa: N815 - a client that uses this server as a proxy, to reach another host

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Suppress the request log."""

    @property
    def _api(self) -> MessagesApi:
        assert isinstance(self.server, MessagesApi)
        return self.server

    def _answer(self, asked: Asked) -> None:
        try:
            message = self._api.answer(asked)
        except ApiError as error:
            self._send(error.status, error.body, error.headers)
        except Exception as error:  # an error in a script must show up in the program's output and log
            self._send(400, ApiError(400, "invalid_request_error", f"the script failed: {error!r}").body)
        else:
            if asked.body.get("stream"):
                events = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in _stream(message))
                self._write(200, "text/event-stream", "".join(events).encode(), {})
            else:
                self._send(200, message)

    def _send(self, status: int, content: JsonObject, headers: Mapping[str, str] | None = None) -> None:
        self._write(status, "application/json", json.dumps(content).encode(), headers or {})

    def _write(self, status: int, kind: str, content: bytes, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Type": kind}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # the client was stopped


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
        "usage": USAGE,
    }


def _block(block: Block) -> JsonObject:
    match block:
        case Text(text):
            return {"type": "text", "text": text}
        case ToolUse(name, given):
            return {"type": "tool_use", "id": f"toolu_{next(_numbers):06}", "name": name, "input": dict(given)}


def _stream(message: JsonObject) -> Iterator[JsonObject]:
    """Yield the events that the API streams for a message."""
    begun: JsonObject = {"content": [], "stop_reason": None, "usage": USAGE | {"output_tokens": 1}}
    yield {"type": "message_start", "message": message | begun}
    blocks: list[JsonObject] = message["content"]
    for index, block in enumerate(blocks):
        empty: JsonObject = {"text": ""} if block["type"] == "text" else {"input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": block | empty}
        yield {"type": "content_block_delta", "index": index, "delta": _delta(block)}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": USAGE}
    yield {"type": "message_stop"}


def _delta(block: JsonObject) -> JsonObject:
    if block["type"] == "text":
        return {"type": "text_delta", "text": block["text"]}
    return {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
