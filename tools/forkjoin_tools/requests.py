"""list_requests and answer_request: questions and permission requests of agents, and their answers."""

import re
import time
from collections.abc import Sequence
from typing import Annotated, Literal

from forkjoin.core.agent_spec import Text
from forkjoin.core.cut_text import cut_text
from forkjoin.core.error import CallerError
from forkjoin.core.request import Decision, Request, RequestKind
from forkjoin.core.session import Call
from pydantic import BaseModel, Field

from forkjoin_tools.reply_size import REPLY_BYTES, fit_rows, one_line
from forkjoin_tools.tool_call import ToolCall
from forkjoin_tools.tool_definition import Arguments, tool

_ID = re.compile("r([1-9][0-9]{0,17})")
#: Maximal characters of an answer.
ANSWER = 16_000
#: Characters that a request can have; characters of an excerpt, and of the mark that ends it.
_FULL_LENGTH, _EXCERPT_LENGTH, _MARK_LENGTH = 16_100, 240, 55


class RequestRow(BaseModel):
    request_id: str
    id: str
    kind: RequestKind
    text: str
    expires_s: int
    new: Literal[True] | None = None  #: whether this lead learns of the request for the first time


def request_rows(
    requests: Sequence[Request], length: int = _EXCERPT_LENGTH, unreported: Sequence[Request] = ()
) -> list[RequestRow]:
    """Return the rows of requests, with at most `length` characters of each text.

    Args:
        unreported: The requests that no earlier wait has reported.
    """
    new = {request.number for request in unreported}
    return [
        RequestRow(
            request_id=request.id,
            id=f"a{request.agent}",
            kind=request.kind,
            text=_cut(request, length),
            expires_s=max(0, round(request.expires - time.time())),
            new=True if request.number in new else None,
        )
        for request in requests
    ]


def _cut(request: Request, length: int) -> str:
    """Return a request's text.

    A cut text ends with the number of missing characters, and where to read them.
    """
    text = one_line(request.text) if length == _EXCERPT_LENGTH else request.text
    return text if len(text) <= length else cut_text(text, length - _MARK_LENGTH, hint=f"list_requests {request.id}")


class ListRequests(Arguments):
    request_id: str | None = None


class RequestList(BaseModel):
    requests: list[RequestRow]
    more: int | None = None


@tool(reads_only=True)
async def list_requests(call: ToolCall, arguments: ListRequests) -> RequestList:
    """List what agents ask you and wait for, or one request in full.

    Next: answer_request.
    """
    found = (
        await call.open_requests()
        if arguments.request_id is None
        else [await _find_request(call, arguments.request_id)]
    )
    if arguments.request_id and found[0].closed is not None:
        raise CallerError(f"{found[0].id} is closed: it was {found[0].outcome}")
    length = _FULL_LENGTH
    rows = request_rows(found, length)
    while len(shown := fit_rows(rows, REPLY_BYTES // 2)) < len(rows) and length > _EXCERPT_LENGTH:
        length = max(_EXCERPT_LENGTH, length // 2)
        rows = request_rows(found, length)
    return RequestList(requests=shown, more=len(found) - len(shown) or None)


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
    """Answer an agent's question, or decide on a permission.

    The agent then continues. The first answer counts.
    """
    request = await _find_request(call, arguments.request_id)
    said = arguments.decision if request.kind == "permission" else arguments.answer
    if said is None or None not in (arguments.answer, arguments.decision):
        right = "decision (allow or deny), and maybe reason" if request.kind == "permission" else "answer"
        raise CallerError(
            f"{request.id} is a {request.kind}: pass only {right}. Its text: {_cut(request, _EXCERPT_LENGTH)}"
        )
    if await call.store.calls.answer_to(call.caller.call) is None:
        await record_answer(call, request, said, arguments.reason or "", call.caller_name, call.caller.call)
    return Answered(request_id=request.id, id=f"a{request.agent}", kind=request.kind, said=said)


async def record_answer(call: ToolCall, request: Request, said: str, reason: str, by: str, source: Call) -> None:
    """Record the answer to a request, without secrets.

    Args:
        by: The name of who answers.
        source: The call that answers. A repeat of it is not an error.

    Raises:
        CallerError: The request is closed already.
    """
    redact = call.services.environments.redact
    await call.store.requests.answer(request, redact(said)[:ANSWER], redact(reason)[:ANSWER], by, source)


async def _find_request(call: ToolCall, request_id: str) -> Request:
    number = _ID.fullmatch(request_id)
    found = await call.store.requests.find(call.project, int(number[1])) if number else None
    if found is None or not call.may_see(await call.store.agents.get(found.agent)):
        raise CallerError(f"No request {request_id[:40]!r} in this project. Call list_requests for the open ones.")
    return found
