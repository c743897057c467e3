"""The person at the lead's client, where that can ask them: what an agent asks during a wait is put to them, too."""

from collections.abc import Sequence
from typing import Any

import anyio
from forkjoin.core.error import ForkjoinError
from forkjoin.core.model import Decision, Request
from forkjoin.core.session import Call
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from forkjoin_tools.reply_size import one_line
from forkjoin_tools.requests import answer
from forkjoin_tools.tool_call import PERSON, ToolCall

#: How long the person has for them before the lead is told; the requests themselves wait on.
_FOR_PERSON_S = 60.0
#: Characters of what an agent asks that a form shows.
_SHOWN = 4_000
#: By no call of theirs is an answer known that they give in a form.
_NO_CALL = Call("", "")


class _Answer(BaseModel):
    answer: str


class _Decision(BaseModel):
    decision: Decision
    reason: str = ""


async def put_to_person(call: ToolCall, requests: Sequence[Request], timeout_s: float) -> bool:
    """Put these to the person, one after the other, and take back what others answer; whether all are closed then."""
    if not call.can_elicit:
        return False
    with anyio.move_on_after(min(timeout_s, _FOR_PERSON_S)):
        for request in requests:
            await _put(call, request)
            if not await _is_closed(call, request):
                return False
        return True
    return False


async def _put(call: ToolCall, request: Request) -> None:
    """Ask for as long as it is open; where that comes to nothing, it stays so."""

    async def watch(scope: anyio.CancelScope) -> None:
        await call.store.changes.until(lambda: _is_closed(call, request))
        scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            tasks.start_soon(call.reply_wait.report_repeatedly, f"the person is asked {request.id}")
            await _ask(call, request)
            tasks.cancel_scope.cancel()
    except* (MCPError, ValueError, ForkjoinError):
        pass  # the client would not, answered nonsense, or came too late; or the records can't be written now


async def _is_closed(call: ToolCall, request: Request) -> bool | None:
    now = await call.store.requests.get(request.number)
    return (now is None or now.closed is not None) or None  # `until` waits while there is no answer


async def _ask(call: ToolCall, request: Request) -> None:
    """Ask the person, and record what they answer, if they do."""
    asker = await call.store.agents.get(request.agent)
    schema: type[_Answer | _Decision] = _Answer if request.kind == "question" else _Decision
    what = "asks" if request.kind == "question" else "wants to do this"
    words = _quote(call.services.environments.show(request.text))
    told: Any = await call.elicit(f"{asker.label} {what}: (its own words stand after >)\n{words}", schema)
    match getattr(told, "data", None):
        case _Answer(answer=said) if said.strip():
            await answer(call, request, said, "", PERSON, _NO_CALL)
        case _Decision(decision=said, reason=reason):
            await answer(call, request, said, reason, PERSON, _NO_CALL)
        case _:
            pass


def _quote(text: str) -> str:
    """Return an agent's words as quoted lines, without control characters.

    Long words are cut in the middle: what matters may come last.
    """
    more = len(text) - _SHOWN
    half = _SHOWN // 2
    parts = [text[:half], text[-half:]] if more > 0 else [text]
    quoted = ("\n".join(f"> {one_line(line)}" for line in part.splitlines()) for part in parts)
    return f"\n[cut: {more} more characters; forkjoin requests shows all]\n".join(quoted)
