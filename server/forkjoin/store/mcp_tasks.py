"""The records of calls whose answer is fetched later: MCP's tasks, a word that means something else here."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Json, TypeAdapter

from forkjoin.core.session import Call
from forkjoin.store.database import Queries
from forkjoin.store.transaction import Transactions

#: How long one is kept, from when it was made.
KEPT_S = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Deferred:
    """A call whose answer is fetched later."""

    id: str
    project: int
    relay: str
    request: str
    tool: str
    arguments: Json[dict[str, Any]]
    agents: Json[tuple[int, ...]]  #: whom it found it is for when it was made
    created: float
    updated: float
    cancelled: bool
    answer: Json[dict[str, Any]] | None  #: once it has been written

    @property
    def call(self) -> Call:
        return Call(self.relay, self.request)


_deferred = TypeAdapter(Deferred).validate_python


class DeferredCalls(Transactions):
    """The part of the store that tells of deferred calls."""

    @Transactions.step(quiet=True)
    def defer(
        self, q: Queries, project: int, call: Call, tool: str, arguments: dict[str, Any], agents: Sequence[int]
    ) -> Deferred:
        """Record a call, or find it where it was made before."""
        about = {"tool": tool, "arguments": arguments, "agents": tuple(agents), "now": time.time()}
        where = {"relay": call.relay, "request": call.request}
        q.defer(id=secrets.token_hex(16), project=project, **where, **about)
        return _deferred(q.deferred_call(**where))

    async def deferred(self, ids: Sequence[str]) -> list[Deferred]:
        """Those that there are of these, in this order."""
        return [_deferred(row) for row in await self._rows("deferred", ids=tuple(ids))]

    async def end_deferred(self, id_: str, answer: dict[str, Any]) -> None:
        """Record a call's answer, which has been written; the first stays."""
        await self._set("end_deferred", quiet=True, id=id_, answer=answer, now=time.time())

    async def cancel_deferred(self, id_: str) -> None:
        """Note that nobody waits for this call any more, unless its answer has been written."""
        await self._set("cancel_deferred", quiet=True, id=id_, now=time.time())
