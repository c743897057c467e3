"""How a client is told of tasks that it listens for, instead of asking (`subscriptions/listen`, as SEP-2663 has it)."""

import logging
from typing import Annotated, Any, Literal, cast

import anyio
from forkjoin.core.error import ForkjoinError
from forkjoin.store.mcp_tasks import McpTask
from mcp.server.context import CallNext, HandlerResult
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    INVALID_PARAMS,
    Notification,
    ServerNotification,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenResult,
)
from pydantic import Field, TypeAdapter, ValidationError

from forkjoin_tools.mcp_tasks import VERSIONS, JsonObject, McpRequest, find_tasks, stand, task_of
from forkjoin_tools.reply_wait import Deferral
from forkjoin_tools.tool_call import ToolCall

log = logging.getLogger(__name__)

#: How long one that listens rests when an answer could not be had.
_REST_S = 1.0
_MOST_IDS = 1_000
_IDS = TypeAdapter(Annotated[list[str], Field(max_length=_MOST_IDS)])


class TaskNotification(Notification[JsonObject, Literal["notifications/tasks"]]):
    """How a task stands, as `tasks/get` would answer."""

    method: Literal["notifications/tasks"] = "notifications/tasks"


async def listen(ctx: McpRequest, call_next: CallNext) -> HandlerResult:
    """Tell a client that listens for tasks how each ends, until all have: a middleware around all requests."""
    wanted = _listened_for(ctx)
    if wanted is None:
        return await call_next(ctx)
    call, found = await find_tasks(ctx, wanted)
    meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
    told = SubscriptionFilter.model_validate({"taskIds": [deferred.id for deferred in found]})
    params = SubscriptionsAcknowledgedNotificationParams(notifications=told, _meta=meta)
    await ctx.session.send_notification(SubscriptionsAcknowledgedNotification(params=params), ctx.request_id)
    async with anyio.create_task_group() as tasks:
        for deferred in found:
            tasks.start_soon(_tell_end, ctx, call, deferred, meta)
    return SubscriptionsListenResult(_meta=meta)


def _listened_for(ctx: McpRequest) -> list[str] | None:
    """Ids of the tasks that a request is to listen for; none where it is no such request.

    Raises:
        MCPError: They are no such ids, or too many.
    """
    if ctx.method != "subscriptions/listen" or ctx.request_id is None or ctx.protocol_version not in VERSIONS:
        return None
    notifications = (ctx.params or {}).get("notifications")
    ids: Any = cast("JsonObject", notifications).get("taskIds") if isinstance(notifications, dict) else None
    try:
        return None if ids is None else list(dict.fromkeys(_IDS.validate_python(ids)))
    except ValidationError:
        raise MCPError(INVALID_PARAMS, f"taskIds must be a list of ids, {_MOST_IDS} at most") from None


async def _tell_end(ctx: McpRequest, call: ToolCall, deferred: McpTask, meta: JsonObject) -> None:
    while (told := await _end(ctx, call, deferred)) is None:
        pass
    notification = TaskNotification(params={**told, "_meta": meta})
    await ctx.session.send_notification(cast("ServerNotification", notification), ctx.request_id)


async def _end(ctx: McpRequest, call: ToolCall, deferred: McpTask) -> JsonObject | None:
    """How a task has ended, once it has; none, after a rest, where that can't be told now."""
    try:
        told = await stand(ctx, call, deferred, Deferral(deferred, notification=deferred.id))
        (now,) = await call.store.mcp_tasks.get_all([deferred.id]) or [deferred]
    except (MCPError, ForkjoinError) as error:
        log.warning("how a call of %s has ended can't be told now: %s", deferred.tool, error)
        await anyio.sleep(_REST_S)
        return None
    if now.cancelled:
        call.caller.session.written.pop(deferred.id, None)  # what the answer would have told is not told
        return task_of(now, "cancelled")
    return told
