"""The records of MCP tasks: calls whose answer the client fetches later."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Json, TypeAdapter

from forkjoin.core.session import Call
from forkjoin.store.database import Records, transaction
from forkjoin.store.queries import Queries

#: How long a task is kept after it was made, in seconds.
KEPT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class McpTask:
    """A call whose answer is fetched later."""

    id: str
    project: int
    relay: str
    request: str
    tool: str
    arguments: Json[dict[str, Any]]
    agents: Json[tuple[int, ...]]  #: numbers of the agents that the call concerns, found when it was made
    created: float  #: seconds since the epoch, as is `updated`
    updated: float
    cancelled: bool
    answer: Json[dict[str, Any]] | None  #: None until there is an answer

    @property
    def call(self) -> Call:
        return Call(self.relay, self.request)


_task = TypeAdapter(McpTask).validate_python


class McpTasks(Records):
    """The part of the store for MCP tasks."""

    @transaction(announce=False)
    def add(
        self, q: Queries, project: int, call: Call, tool: str, arguments: dict[str, Any], agents: Sequence[int]
    ) -> McpTask:
        """Record the task of a call, and return the task.

        For a repeated call, returns the task that the first call recorded.
        """
        about = {"tool": tool, "arguments": arguments, "agents": tuple(agents), "now": time.time()}
        where = {"relay": call.relay, "request": call.request}
        q.defer(id=secrets.token_hex(16), project=project, **where, **about)
        return _task(q.deferred_call(**where))

    async def get_all(self, ids: Sequence[str]) -> list[McpTask]:
        """Return the tasks with these ids, in the same order, without unknown ids."""
        return [_task(row) for row in await self._database.read_rows("deferred", ids=tuple(ids))]

    async def finish(self, id_: str, answer: dict[str, Any]) -> None:
        """Record the answer of a task, unless the task has an answer or was cancelled."""
        await self._database.execute("end_deferred", announce=False, id=id_, answer=answer, now=time.time())

    async def cancel(self, id_: str) -> None:
        """Record that the task was cancelled, unless it has an answer."""
        await self._database.execute("cancel_deferred", announce=False, id=id_, now=time.time())
