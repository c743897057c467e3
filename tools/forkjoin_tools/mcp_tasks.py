"""MCP tasks (SEP-2663): waits and merges whose client polls or subscribes, instead of blocking.

A task is a recorded call. Each `tasks/get` makes the call once more without blocking: a wait only reads, and a merge is
identified by its call and done once. So nothing runs meanwhile, and any later daemon can answer. The answer is recorded
once it was written to the client. If it was lost on the way, the call is made again.
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
#: Protocol versions with tasks.
VERSIONS = frozenset(MODERN_PROTOCOL_VERSIONS)
_TOOLS = {tool.name: tool for tool in (wait_agents, merge_worktree)}
#: How often a client should poll. The answer wakes a waiting lead.
_POLL_MS = 2_000


class TaskParams(RequestParams):
    task_id: str = Field(max_length=64)


class UpdateParams(TaskParams):
    input_responses: JsonObject


class Tasks(Extension):
    """The MCP extension that makes tasks of waits and merges that have no answer yet."""

    identifier = _ID

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, _get, VERSIONS),
            MethodBinding("tasks/update", UpdateParams, _update, VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, _cancel, VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: McpRequest, call_next: CallNext
    ) -> HandlerResult:
        """Return a task if there is no answer yet and the client supports tasks.

        Otherwise just make the call.
        """
        if params.name not in _TOOLS or not _supports_tasks(ctx):
            return await call_next(ctx)
        try:
            with deferring(Deferral()):
                return await call_next(ctx)
        except NoAnswerYetError as error:
            no_answer = error
        try:
            call = await open_call(ctx, params.name, params.arguments or {})
            content = params.name, params.arguments or {}, no_answer.agents
            deferred = await call.store.mcp_tasks.add(call.project, call.caller.call, *content)
        except ForkjoinError as error:
            log.warning("a call of %s could not be recorded as a task, so it blocks: %s", params.name, error)
            return await call_next(ctx)
        return {"resultType": "task", **task_fields(deferred, "working", str(no_answer))}


def _supports_tasks(ctx: McpRequest) -> bool:
    declared = ctx.session.client_capabilities
    extensions = declared.extensions if declared else None
    return ctx.protocol_version in VERSIONS and _ID in (extensions or {})


# -- requests of clients about tasks


async def _get(ctx: McpRequest, params: TaskParams) -> JsonObject:
    call, deferred = await _find_task(ctx, params.task_id)
    return await read_task(ctx, call, deferred, Deferral(deferred))


async def _update(ctx: McpRequest, params: UpdateParams) -> JsonObject:
    await _find_task(ctx, params.task_id)  # no task ever asks for input
    return {}


async def _cancel(ctx: McpRequest, params: TaskParams) -> JsonObject:
    """Cancel a wait. A merge goes on, and the client still gets its answer."""
    call, deferred = await _find_task(ctx, params.task_id)
    about = _TOOLS[deferred.tool].annotations
    if about and about.read_only_hint:
        await call.store.mcp_tasks.cancel(deferred.id)
    return {}


async def _find_task(ctx: McpRequest, task: str) -> tuple[ToolCall, McpTask]:
    """Return the call that asks, and the task in the caller's project.

    Raises:
        MCPError: The project has no such task, or `find_tasks` failed.
    """
    call, found = await find_tasks(ctx, [task])
    if not found:
        raise MCPError(INVALID_PARAMS, "Failed to retrieve task: Task not found")
    return call, found[0]


async def find_tasks(ctx: McpRequest, tasks: Sequence[str]) -> tuple[ToolCall, list[McpTask]]:
    """Return the call that asks, and the tasks of the caller's project.

    Raises:
        MCPError: The records can't be read now, or the client does not declare support for tasks.
    """
    require_client_extension(ctx, _ID)
    try:
        call = await open_call(ctx, "", {})
        found = await call.store.mcp_tasks.get_all(tasks)
        with suppress(NoRepositoryError):
            return call, [deferred for deferred in found if deferred.project == call.project]
    except (ForkjoinError, OSError) as error:
        show = ctx.lifespan_context[0].services.environments.show
        raise MCPError(INTERNAL_ERROR, show(f"The tasks can't be read now, try again: {error}")) from error
    return call, []


async def read_task(ctx: McpRequest, call: ToolCall, deferred: McpTask, deferral: Deferral) -> JsonObject:
    """Return a task's fields, with the answer if there is one.

    The answer is recorded once it was written.
    """
    if deferred.cancelled:
        return task_fields(deferred, "cancelled")
    answer = deferred.answer
    if answer is None:
        try:
            answer = await _repeat_call(ctx, deferred, deferral)
        except NoAnswerYetError as error:
            return task_fields(deferred, "working", str(error))
        written = partial(call.store.mcp_tasks.finish, deferred.id, answer)
        assert ctx.request_id is not None
        # First, because otherwise a repeat of the call between the two records would wait on.
        call.caller.session.when_written(deferral.notification or ctx.request_id, written, first=True)
    return {**task_fields(deferred, "completed"), "result": answer}


async def _repeat_call(ctx: McpRequest, deferred: McpTask, deferral: Deferral) -> JsonObject:
    """Make a recorded call again, and return its answer.

    The answer may be an error of the caller's.

    Raises:
        NoAnswerYetError: There is no answer yet.
        MCPError: forkjoin failed. The client should ask again.
    """
    with deferring(deferral):
        try:
            result = await _TOOLS[deferred.tool].run(deferred.arguments, Context(request_context=ctx))
        except UnexpectedToolError as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from error
        except ToolError as error:
            result = CallToolResult(content=[TextContent(type="text", text=str(error))], is_error=True)
    answer: JsonObject = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return answer


def task_fields(deferred: McpTask, status: str, message: str | None = None) -> JsonObject:
    """Return a task's fields as MCP defines them."""
    fields = {
        "taskId": deferred.id,
        "status": status,
        "statusMessage": message,
        "createdAt": _format_utc(deferred.created),
        "lastUpdatedAt": _format_utc(deferred.updated),
        "ttlMs": round(KEPT_S * 1000),
        "pollIntervalMs": _POLL_MS,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _format_utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
