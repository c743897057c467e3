"""An agent's own tools ask_lead, and approve, which its program calls for what no permission rule decides."""

import json
from typing import Annotated, Any

from forkjoin.agents.open_requests import FindClosed, ask
from forkjoin.core.agent_spec import Text
from forkjoin.core.cut_text import cut_text
from forkjoin.core.error import CallerError
from forkjoin.core.request import Request, RequestKind
from forkjoin.core.settings import RequestMinutes
from forkjoin.store.rows import NewRequest
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from forkjoin_tools.tool_call import ToolCall
from forkjoin_tools.tool_definition import Arguments, tool

#: Maximal characters of a question, of its default, and of the use of a tool to decide on.
_QUESTION_LENGTH, _DEFAULT_LENGTH, _TOOL_USE_HALF = 8_000, 2_000, 8_000
_UNANSWERED = "(nobody answered in time: decide yourself, and say in your report what you decided)"


class AskLead(Arguments):
    question: Annotated[Text, Field(max_length=_QUESTION_LENGTH)] = Field(
        description="With everything needed to answer it."
    )
    default: Annotated[Text, Field(max_length=_DEFAULT_LENGTH)] | None = Field(
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
    """Ask your lead what you can't find out or decide yourself.

    Use it only if your work depends on the answer. Blocks until the lead answers or time is up; then `default`
    counts. Most often it is better to decide yourself, and to say so in your report.
    """
    fallback = arguments.default or _UNANSWERED
    request = await _ask_and_wait(call, "question", arguments.question, fallback, arguments.timeout_minutes)
    if not request.said:
        raise CallerError(f"Your question was {request.outcome}.")
    return Answer(answer=request.said, answered_by=request.answered_by or "nobody")


class Approve(Arguments):
    """The arguments with which the agent program calls. Unknown ones are ignored: newer programs may add some."""

    model_config = ConfigDict(extra="ignore")

    tool_name: str
    input: dict[str, Any]


@tool()
async def approve(call: ToolCall, arguments: Approve) -> CallToolResult:
    """For your program, which calls it to learn whether it may use a tool.

    Do not call it yourself.
    """
    tool_use = f"{arguments.tool_name} {json.dumps(arguments.input, ensure_ascii=False)}"
    safe = call.services.environments.redact(tool_use)  # before it is cut, since half a secret isn't recognized
    try:
        text = cut_text(safe, _TOOL_USE_HALF, _TOOL_USE_HALF)  # the end of a command may matter most
        request = await _ask_and_wait(call, "permission", text, "deny", None)
    except CallerError as error:
        return _decision_result({"behavior": "deny", "message": str(error)})
    if request.said == "allow":  # the program keeps its own input, which may be too large for a reply
        return _decision_result({"behavior": "allow", "updatedInput": {}})
    return _decision_result({"behavior": "deny", "message": f"That was {request.outcome}"})


async def _ask_and_wait(call: ToolCall, kind: RequestKind, text: str, fallback: str, minutes: float | None) -> Request:
    """Record a request without secrets, and return it once it is closed."""
    agent = await call.calling_agent()
    redact = call.services.environments.redact
    seconds = (minutes or call.services.settings.limits.request_minutes) * 60
    new = NewRequest(kind, redact(text), redact(fallback), seconds)

    async def wait(find_closed: FindClosed) -> Request | None:
        return await call.reply_wait.wait([agent], find_closed, _describe_wait)

    return await ask(call.store, agent.number, call.caller.call, new, wait, call.is_cancelled)


async def _describe_wait() -> str:
    return "waiting for an answer"


def _decision_result(decision: dict[str, Any]) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=json.dumps(decision, ensure_ascii=False))])
