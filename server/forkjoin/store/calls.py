"""The records of calls that must not take effect twice."""

import json
import time
from typing import Any

from forkjoin.core.session import Call
from forkjoin.store.database import Records
from forkjoin.store.queries import Queries


class Calls(Records):
    """The part of the store for the first answers to calls."""

    async def answer_to(self, call: Call) -> dict[str, Any] | None:
        """Return the recorded answer to this call, or None if the call is new."""
        return await self._database.read_one(json.loads, "call", relay=call.relay, request=call.request)


def remember(q: Queries, call: Call, answer: dict[str, Any]) -> None:
    """Record the answer to a call in the transaction that carries the call out.

    A call without a relay id can't be repeated, and is not recorded.
    """
    if call.relay:
        q.add_call(relay=call.relay, request=call.request, answer=answer, at=time.time())
