"""What agents ask, and its answers: list_requests and answer_request."""

import re
import time
from collections.abc import Sequence
from typing import Annotated

from forkjoin.error import CallerError
from forkjoin.model import Decision, Request, RequestKind
from forkjoin.session import Call
from forkjoin.spec import Text
from pydantic import BaseModel, Field

from forkjoin_tools.desk import Desk
from forkjoin_tools.size import ROOM, fit
from forkjoin_tools.strict import Arguments, tool

_ID = re.compile("r([1-9][0-9]{0,17})")
#: Characters of an answer; of a request, beside others.
ANSWER, _BRIEF = 16_000, 240
_MORE = "… [{} more: list_requests]"


class Asked(BaseModel):
    request_id: str
    id: str
    kind: RequestKind
    text: str
    expires_s: int


def rows_of(requests: Sequence[Request], *, whole: bool = False) -> list[Asked]:
    """Requests as an answer tells them: briefly, or whole."""
    return [
        Asked(
            request_id=request.id,
            id=f"a{request.agent}",
            kind=request.kind,
            text=request.text if whole else _brief(request.text),
            expires_s=max(0, round(request.expires - time.time())),
        )
        for request in requests
    ]


def _brief(text: str) -> str:
    """It in one line, which says where it is cut: what matters may come last."""
    line = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()
    left = _BRIEF - len(_MORE) - 3  # for digits
    return line if len(line) <= _BRIEF else line[:left] + _MORE.format(len(line) - left)


class ListRequests(Arguments):
    """No arguments."""


class Requests(BaseModel):
    requests: list[Asked]
    more: int | None = None


@tool(reads_only=True)
async def list_requests(desk: Desk, arguments: ListRequests) -> Requests:  # noqa: ARG001
    """List what this project's agents ask and wait for, in full. Next: answer_request."""
    asked = await desk.store.open_requests(desk.project)
    seen = {agent.number for agent in await desk.store.agents_numbered({a.agent for a in asked}) if desk.may_see(agent)}
    found = rows_of([request for request in asked if request.agent in seen], whole=True)
    told = fit(found, ROOM // 2)
    return Requests(requests=told, more=len(found) - len(told) or None)


class AnswerRequest(Arguments):
    request_id: str
    answer: Annotated[Text, Field(max_length=ANSWER)] | None = Field(None, description="To a question.")
    decision: Decision | None = Field(None, description="On a permission.")
    reason: Annotated[Text, Field(max_length=ANSWER)] | None = None


class Answered(BaseModel):
    request_id: str
    id: str
    kind: RequestKind
    said: str


@tool()
async def answer_request(desk: Desk, arguments: AnswerRequest) -> Answered:
    """Answer what an agent asks, which goes on with it at once; the first answer counts, whoever gives it."""
    request = await _find(desk, arguments.request_id)
    said = arguments.decision if request.kind == "permission" else arguments.answer
    if said is None or None not in (arguments.answer, arguments.decision):
        words = "decision, allow or deny (and reason)" if request.kind == "permission" else "answer, in words"
        raise CallerError(f"{request.id} is a {request.kind}: give {words}, alone. It asks: {_brief(request.text)}")
    if await desk.store.answered(desk.caller.call) is None:
        await answer(desk, request, said, arguments.reason or "", desk.who, desk.caller.call)
    return Answered(request_id=request.id, id=f"a{request.agent}", kind=request.kind, said=said)


async def answer(desk: Desk, request: Request, said: str, reason: str, by: str, call: Call) -> None:
    """Record an answer, given by this call; no key is in it.

    Raises:
        CallerError: It was closed before.
    """
    hide = desk.rooms.environments.redact
    await desk.store.answer(request, hide(said)[:ANSWER], hide(reason)[:ANSWER], by, call)


async def _find(desk: Desk, asked: str) -> Request:
    number = _ID.fullmatch(asked)
    found = await desk.store.request_in(desk.project, int(number[1])) if number else None
    if found is None or not desk.may_see(await desk.store.agent(found.agent)):
        raise CallerError(f"No request {asked[:40]!r} in this project. Call list_requests for those that are open.")
    return found
