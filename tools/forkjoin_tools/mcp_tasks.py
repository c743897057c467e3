"""MCP's tasks (SEP-2663): a wait, or a merge, that its client asks after, or is told of, instead of blocking.

Such a task is the call itself, recorded. Whoever asks how it stands makes it once more: a wait only reads, and a merge
is known by its call and made once. So nothing has to run meanwhile, any daemon can tell, and the answer is the one that
the call would have blocked for. It is recorded once it was written: what was lost on the way is made again.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from forkjoin.core.error import ForkjoinError, NoRepositoryError
from forkjoin.store.mcp_tasks import KEPT_S, McpTask
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.server import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    RequestParams,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

from forkjoin_tools.merge import merge_worktree
from forkjoin_tools.reply_wait import Deferral, NoAnswerYetError, deferring
from forkjoin_tools.tool_call import ToolCall, open_call
from forkjoin_tools.wait import wait_agents

log = logging.getLogger(__name__)

McpRequest = ServerRequestContext[Any, Any]
JsonObject = dict[str, Any]

_ID = "io.modelcontextprotocol/tasks"
#: Those in which an answer may be a task.
VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)
_TOOLS = {tool.name: tool for tool in (wait_agents, merge_worktree)}
#: How often a client that polls is to do so: a lead that waits for it is woken by the answer.
_POLL_MS = 2_000


class OfTask(RequestParams):
    task_id: str = Field(max_length=64)


class Update(OfTask):
    input_responses: JsonObject


class Tasks(Extension):
    identifier = _ID

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", OfTask, _get, VERSIONS),
            MethodBinding("tasks/update", Update, _update, VERSIONS),
            MethodBinding("tasks/cancel", OfTask, _cancel, VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: McpRequest, call_next: CallNext
    ) -> HandlerResult:
        """Answer at once what can be; make a task of the rest, for a client that has said that it takes one."""
        if params.name not in _TOOLS or not _declares(ctx):
            return await call_next(ctx)
        try:
            with deferring(Deferral()):
                return await call_next(ctx)
        except NoAnswerYetError as error:
            how_far = error
        try:
            call = await open_call(ctx, params.name, params.arguments or {})
            what = params.name, params.arguments or {}, how_far.agents
            deferred = await call.store.mcp_tasks.add(call.project, call.caller.call, *what)
        except ForkjoinError as error:
            log.warning("a call of %s is not recorded, and blocks: %s", params.name, error)
            return await call_next(ctx)
        return {"resultType": "task", **task_of(deferred, "working", str(how_far))}


def _declares(ctx: McpRequest) -> bool:
    declared = ctx.session.client_capabilities
    extensions = declared.extensions if declared else None
    return ctx.protocol_version in VERSIONS and _ID in (extensions or {})


# -- what a client asks of a task


async def _get(ctx: McpRequest, params: OfTask) -> JsonObject:
    call, deferred = await _find(ctx, params.task_id)
    return await stand(ctx, call, deferred, Deferral(deferred))


async def _update(ctx: McpRequest, params: Update) -> JsonObject:
    await _find(ctx, params.task_id)  # nothing is ever asked in one: there are no such responses
    return {}


async def _cancel(ctx: McpRequest, params: OfTask) -> JsonObject:
    """Let nobody wait any more; what changes something, a merge, goes on, as its client may see by asking on."""
    call, deferred = await _find(ctx, params.task_id)
    about = _TOOLS[deferred.tool].annotations
    if about and about.read_only_hint:
        await call.store.mcp_tasks.cancel(deferred.id)
    return {}


async def _find(ctx: McpRequest, task: str) -> tuple[ToolCall, McpTask]:
    """A task of the caller's project.

    Raises:
        MCPError: There is none, or as `find_tasks`.
    """
    call, found = await find_tasks(ctx, [task])
    if not found:
        raise MCPError(INVALID_PARAMS, "Failed to retrieve task: Task not found")
    return call, found[0]


async def find_tasks(ctx: McpRequest, tasks: Sequence[str]) -> tuple[ToolCall, list[McpTask]]:
    """Those of these that are tasks of the caller's project.

    Raises:
        MCPError: It can't be told now, or the client has not said that it knows of tasks.
    """
    require_client_extension(ctx, _ID)
    try:
        call = await open_call(ctx, "", {})
        found = await call.store.mcp_tasks.get_all(tasks)
        with suppress(NoRepositoryError):
            return call, [deferred for deferred in found if deferred.project == call.project]
    except (ForkjoinError, OSError) as error:
        show = ctx.lifespan_context[0].services.environments.show
        raise MCPError(INTERNAL_ERROR, show(f"Tasks can't be reported now: {error}")) from error
    return call, []


async def stand(ctx: McpRequest, call: ToolCall, deferred: McpTask, deferral: Deferral) -> JsonObject:
    """How a task stands, with its answer once it has one, which is recorded when it was written."""
    if deferred.cancelled:
        return task_of(deferred, "cancelled")
    answer = deferred.answer
    if answer is None:
        try:
            answer = await _make(ctx, deferred, deferral)
        except NoAnswerYetError as error:
            return task_of(deferred, "working", str(error))
        written = partial(call.store.mcp_tasks.finish, deferred.id, answer)
        assert ctx.request_id is not None
        # before what it has told counts as told: made once more in between, it would not end
        call.caller.session.when_written(deferral.notification or ctx.request_id, written, first=True)
    return {**task_of(deferred, "completed"), "result": answer}


async def _make(ctx: McpRequest, deferred: McpTask, deferral: Deferral) -> JsonObject:
    """The answer of a call that is made again.

    Raises:
        MCPError: There is none now, through no fault of its caller; it is to be asked for again.
    """
    with deferring(deferral):
        try:
            result = await _TOOLS[deferred.tool].run(deferred.arguments, Context(request_context=ctx))
        except UnexpectedToolError as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from error
        except ToolError as error:
            result = CallToolResult(content=[TextContent(type="text", text=str(error))], is_error=True)
    told: JsonObject = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return told


def task_of(deferred: McpTask, status: str, message: str | None = None) -> JsonObject:
    """A task as MCP tells it."""
    told = {
        "taskId": deferred.id,
        "status": status,
        "statusMessage": message,
        "createdAt": _time(deferred.created),
        "lastUpdatedAt": _time(deferred.updated),
        "ttlMs": round(KEPT_S * 1000),
        "pollIntervalMs": _POLL_MS,
    }
    return {key: value for key, value in told.items() if value is not None}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
