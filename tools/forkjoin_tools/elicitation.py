"""Forms at the lead's client: during a wait, requests of agents are shown to the person there first (elicitation)."""

from collections.abc import Sequence
from typing import Any

import anyio
from forkjoin.core.cut_text import cut_text
from forkjoin.core.error import ForkjoinError
from forkjoin.core.request import Decision, Request
from forkjoin.core.session import Call
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from forkjoin_tools.reply_size import one_line
from forkjoin_tools.requests import record_answer
from forkjoin_tools.tool_call import PERSON, ToolCall

#: Seconds that the person has to answer before the lead gets the requests. The requests stay open after that.
_ANSWER_S = 60.0
#: Maximal characters of a request in a form.
_FORM_LENGTH = 4_000
#: The identity of an answer given in a form, which no tool call gave.
_NO_CALL = Call("", "")


class _Answer(BaseModel):
    answer: str


class _Decision(BaseModel):
    decision: Decision
    reason: str = ""


async def put_to_person(call: ToolCall, requests: Sequence[Request], timeout_s: float) -> bool:
    """Show requests to the person one by one. Return whether all are closed then.

    A form is withdrawn when someone else answers its request.
    """
    if not call.can_elicit:
        return False
    with anyio.move_on_after(min(timeout_s, _ANSWER_S)):
        for request in requests:
            await _show_form(call, request)
            if not await _is_closed(call, request):
                return False
        return True
    return False


async def _show_form(call: ToolCall, request: Request) -> None:
    """Show a form for as long as the request is open.

    The request stays open if the form isn't answered.
    """

    async def watch(scope: anyio.CancelScope) -> None:
        await call.store.changes.until(lambda: _is_closed(call, request))
        scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, tasks.cancel_scope)
            tasks.start_soon(call.reply_wait.report_repeatedly, f"waiting for the person to answer {request.id}")
            await _elicit_answer(call, request)
            tasks.cancel_scope.cancel()
    except* (MCPError, ValueError, ForkjoinError):
        pass  # refused, invalid or late answer; or the records can't be written now


async def _is_closed(call: ToolCall, request: Request) -> bool | None:
    now = await call.store.requests.get(request.number)
    return (now is None or now.closed is not None) or None  # `until` waits while this is `None`


async def _elicit_answer(call: ToolCall, request: Request) -> None:
    """Ask the person, and record the answer if there is one."""
    asker = await call.store.agents.get(request.agent)
    schema: type[_Answer | _Decision] = _Answer if request.kind == "question" else _Decision
    verb = "asks" if request.kind == "question" else "wants to do this"
    quoted = _quote(call.services.environments.show(request.text))
    form: Any = await call.elicit(f"{asker.label} {verb}: (its own words stand after >)\n{quoted}", schema)
    match getattr(form, "data", None):
        case _Answer(answer=said) if said.strip():
            await record_answer(call, request, said, "", PERSON, _NO_CALL)
        case _Decision(decision=said, reason=reason):
            await record_answer(call, request, said, reason, PERSON, _NO_CALL)
        case _:
            pass


def _quote(text: str) -> str:
    """Return an agent's words as quoted lines, without control characters.

    Long texts are cut in the middle, because the end may matter most.
    """

    def quote_lines(part: str) -> str:
        return "\n".join(f"> {one_line(line)}" for line in part.splitlines())

    half = _FORM_LENGTH // 2
    return cut_text(text, half, half, hint="forkjoin requests shows all", show=quote_lines)
