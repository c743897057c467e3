"""Notifications for clients that subscribe to tasks instead of polling (`subscriptions/listen` of SEP-2663)."""

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

from forkjoin_tools.mcp_tasks import VERSIONS, JsonObject, McpRequest, find_tasks, read_task, task_fields
from forkjoin_tools.reply_wait import Deferral
from forkjoin_tools.tool_call import ToolCall

log = logging.getLogger(__name__)

#: Seconds until the next try when a task could not be read.
_RETRY_S = 1.0
#: Maximal tasks of one subscription.
_MOST_IDS = 1_000
_IDS = TypeAdapter(Annotated[list[str], Field(max_length=_MOST_IDS)])


class TaskNotification(Notification[JsonObject, Literal["notifications/tasks"]]):
    """The notification that a task ended, with the fields that `tasks/get` returns."""

    method: Literal["notifications/tasks"] = "notifications/tasks"


async def listen(ctx: McpRequest, call_next: CallNext) -> HandlerResult:
    """Notify a subscribed client when each task ends.

    Returns once all have ended. This is a middleware: any other request is passed on.
    """
    wanted = _subscribed_tasks(ctx)
    if wanted is None:
        return await call_next(ctx)
    call, found = await find_tasks(ctx, wanted)
    meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
    accepted = SubscriptionFilter.model_validate({"taskIds": [deferred.id for deferred in found]})
    params = SubscriptionsAcknowledgedNotificationParams(notifications=accepted, _meta=meta)
    await ctx.session.send_notification(SubscriptionsAcknowledgedNotification(params=params), ctx.request_id)
    async with anyio.create_task_group() as tasks:
        for deferred in found:
            tasks.start_soon(_notify_end, ctx, call, deferred, meta)
    return SubscriptionsListenResult(_meta=meta)


def _subscribed_tasks(ctx: McpRequest) -> list[str] | None:
    """Return the task ids in a subscription, or `None` for any other request.

    Raises:
        MCPError: The ids are not a list of strings, or too many.
    """
    if ctx.method != "subscriptions/listen" or ctx.request_id is None or ctx.protocol_version not in VERSIONS:
        return None
    notifications = (ctx.params or {}).get("notifications")
    ids: Any = cast("JsonObject", notifications).get("taskIds") if isinstance(notifications, dict) else None
    try:
        return None if ids is None else list(dict.fromkeys(_IDS.validate_python(ids)))
    except ValidationError:
        raise MCPError(INVALID_PARAMS, f"taskIds must be a list of at most {_MOST_IDS} strings") from None


async def _notify_end(ctx: McpRequest, call: ToolCall, deferred: McpTask, meta: JsonObject) -> None:
    while (ended := await _wait_for_end(ctx, call, deferred)) is None:
        pass
    notification = TaskNotification(params={**ended, "_meta": meta})
    await ctx.session.send_notification(cast("ServerNotification", notification), ctx.request_id)


async def _wait_for_end(ctx: McpRequest, call: ToolCall, deferred: McpTask) -> JsonObject | None:
    """Return an ended task's fields.

    Returns `None`, after a pause, if the task can't be read now.
    """
    try:
        fields = await read_task(ctx, call, deferred, Deferral(deferred, notification=deferred.id))
        (now,) = await call.store.mcp_tasks.get_all([deferred.id]) or [deferred]
    except (MCPError, ForkjoinError) as error:
        log.warning("the task of a call of %s can't be read now: %s", deferred.tool, error)
        await anyio.sleep(_RETRY_S)
        return None
    if now.cancelled:
        call.caller.session.written.pop(deferred.id, None)  # the agents in the answer don't count as reported
        return task_fields(now, "cancelled")
    return fields
