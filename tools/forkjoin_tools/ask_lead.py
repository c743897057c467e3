"""What an agent asks and waits for: ask_lead, and approve, which its program calls for what no rule decides."""

import json
from typing import Annotated, Any

from forkjoin.agents.requests import FindClosed, ask
from forkjoin.core.agent_spec import Text
from forkjoin.core.error import CallerError
from forkjoin.core.model import Request, RequestKind
from forkjoin.core.settings import RequestMinutes
from forkjoin.store.rows import NewRequest
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from forkjoin_tools.tool_call import ToolCall
from forkjoin_tools.tool_definition import Arguments, tool

#: Characters of a question and its default, and of what a program wants to do, that are recorded.
_QUESTION, _DEFAULT, _WANTED = 8_000, 2_000, 16_000
_UNANSWERED = "(nobody answered in time: decide yourself, and say what you decided)"


class AskLead(Arguments):
    question: Annotated[Text, Field(max_length=_QUESTION)] = Field(description="With everything needed to answer it.")
    default: Annotated[Text, Field(max_length=_DEFAULT)] | None = Field(
        None, description="Counts as the answer if nobody answers in time."
    )
    timeout_minutes: Annotated[RequestMinutes, Field(ge=1)] | None = Field(
        None, description="Default: 10, unless the settings say otherwise."
    )


class Answer(BaseModel):
    answer: str
    answered_by: str


@tool()
async def ask_lead(call: ToolCall, arguments: AskLead) -> Answer:
    """Ask your lead what you can't find out or decide yourself and your work depends on. Blocks until the lead
    answers or time is up; then `default` counts. Most often it is better to decide yourself, and to say so in your
    report."""
    fallback = arguments.default or _UNANSWERED
    request = await _ask(call, "question", arguments.question, fallback, arguments.timeout_minutes)
    if not request.said:
        raise CallerError(f"Your question was {request.outcome}.")
    return Answer(answer=request.said, answered_by=request.answered_by or "nobody")


class Approve(Arguments):
    """As a program calls it, which may say more than we know."""

    model_config = ConfigDict(extra="ignore")

    tool_name: str
    input: dict[str, Any]


@tool()
async def approve(call: ToolCall, arguments: Approve) -> CallToolResult:
    """For your program, which calls it to learn whether it may use a tool. Do not call it yourself."""
    wanted = f"{arguments.tool_name} {json.dumps(arguments.input, ensure_ascii=False)}"
    whole = call.services.environments.redact(wanted)  # before it is cut: half a key is known for none
    try:
        request = await _ask(call, "permission", _cut(whole), "deny", None)
    except CallerError as error:
        return _text({"behavior": "deny", "message": str(error)})
    if request.said == "allow":  # what it asked for, which it holds: too large a result it would not take
        return _text({"behavior": "allow", "updatedInput": {}})
    return _text({"behavior": "deny", "message": f"That was {request.outcome}"})


async def _ask(call: ToolCall, kind: RequestKind, text: str, fallback: str, minutes: float | None) -> Request:
    """What was asked, once it is closed; no key is in it, whoever will read it."""
    agent = await call.calling_agent()
    redact = call.services.environments.redact
    seconds = (minutes or call.services.settings.limits.request_minutes) * 60
    new = NewRequest(kind, redact(text), redact(fallback), seconds)

    async def wait(find_closed: FindClosed) -> Request | None:
        return await call.reply_wait.wait([agent], find_closed, _how_far)

    return await ask(call.store, agent.number, call.caller.call, new, wait, call.is_cancelled)


async def _how_far() -> str:
    return "it waits for an answer"


def _cut(text: str) -> str:
    more = len(text) - _WANTED
    half = _WANTED // 2  # what matters may come last
    return f"{text[:half]} [cut: {more} more characters] {text[-half:]}" if more > 0 else text


def _text(decision: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=json.dumps(decision, ensure_ascii=False))])
