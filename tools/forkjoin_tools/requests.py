"""What agents ask, and its answers: list_requests and answer_request."""

import re
import time
from collections.abc import Sequence
from typing import Annotated, Literal

from forkjoin.core.agent_spec import Text
from forkjoin.core.error import CallerError
from forkjoin.core.model import Decision, Request, RequestKind
from forkjoin.core.session import Call
from pydantic import BaseModel, Field

from forkjoin_tools.reply_size import REPLY_BYTES, fit, one_line
from forkjoin_tools.tool_call import ToolCall
from forkjoin_tools.tool_definition import Arguments, tool

_ID = re.compile("r([1-9][0-9]{0,17})")
#: Characters of an answer.
ANSWER = 16_000
#: Of a request: as ask.py makes one, its mark included; as it stands beside others; what the mark of a cut takes.
_WHOLE, _BRIEF, _MARK = 16_100, 240, 40


class RequestRow(BaseModel):
    request_id: str
    id: str
    kind: RequestKind
    text: str
    expires_s: int
    new: Literal[True] | None = None  #: where this lead was not told of it before


def request_rows(requests: Sequence[Request], length: int = _BRIEF, news: Sequence[Request] = ()) -> list[RequestRow]:
    """Requests as an answer tells them, with so many characters of each."""
    fresh = {request.number for request in news}
    return [
        RequestRow(
            request_id=request.id,
            id=f"a{request.agent}",
            kind=request.kind,
            text=_cut(request, length),
            expires_s=max(0, round(request.expires - time.time())),
            new=True if request.number in fresh else None,
        )
        for request in requests
    ]


def _cut(request: Request, length: int) -> str:
    """What it asks, briefly in one line; it says where it is cut, since what matters may come last."""
    text = one_line(request.text) if length == _BRIEF else request.text
    left = length - _MARK
    return text if len(text) <= length else f"{text[:left]}… [{len(text) - left} more: list_requests {request.id}]"


class ListRequests(Arguments):
    request_id: str | None = None


class Requests(BaseModel):
    requests: list[RequestRow]
    more: int | None = None


@tool(reads_only=True)
async def list_requests(call: ToolCall, arguments: ListRequests) -> Requests:
    """List what agents ask you and wait for, or one request in full. Next: answer_request."""
    found = await call.open_requests() if arguments.request_id is None else [await _find(call, arguments.request_id)]
    if arguments.request_id and found[0].closed is not None:
        raise CallerError(f"{found[0].id} is closed. It was {found[0].outcome}")
    length, rows = _WHOLE, request_rows(found, _WHOLE)  # all of them, each as long as there is room for
    while len(told := fit(rows, REPLY_BYTES // 2)) < len(rows) and length > _BRIEF:
        length = max(_BRIEF, length // 2)
        rows = request_rows(found, length)
    return Requests(requests=told, more=len(found) - len(told) or None)


class AnswerRequest(Arguments):
    request_id: str
    answer: Annotated[Text, Field(max_length=ANSWER)] | None = Field(None, description="For a question.")
    decision: Decision | None = Field(None, description="For a permission.")
    reason: Annotated[Text, Field(max_length=ANSWER)] | None = None


class Answered(BaseModel):
    request_id: str
    id: str
    kind: RequestKind
    said: str


@tool()
async def answer_request(call: ToolCall, arguments: AnswerRequest) -> Answered:
    """Answer an agent's question, or decide on a permission; the agent then continues. The first answer counts."""
    request = await _find(call, arguments.request_id)
    said = arguments.decision if request.kind == "permission" else arguments.answer
    if said is None or None not in (arguments.answer, arguments.decision):
        words = "decision, allow or deny (and reason)" if request.kind == "permission" else "answer, in words"
        raise CallerError(f"{request.id} is a {request.kind}: give {words}, alone. It asks: {_cut(request, _BRIEF)}")
    if await call.store.calls.answer_to(call.caller.call) is None:
        await answer(call, request, said, arguments.reason or "", call.caller_name, call.caller.call)
    return Answered(request_id=request.id, id=f"a{request.agent}", kind=request.kind, said=said)


async def answer(call: ToolCall, request: Request, said: str, reason: str, by: str, source: Call) -> None:
    """Record an answer, given by this call; no key is in it.

    Raises:
        CallerError: It was closed before.
    """
    redact = call.services.environments.redact
    await call.store.requests.answer(request, redact(said)[:ANSWER], redact(reason)[:ANSWER], by, source)


async def _find(call: ToolCall, asked: str) -> Request:
    number = _ID.fullmatch(asked)
    found = await call.store.requests.find(call.project, int(number[1])) if number else None
    if found is None or not call.may_see(await call.store.agents.get(found.agent)):
        raise CallerError(f"No request {asked[:40]!r} in this project. Call list_requests for those that are open.")
    return found
