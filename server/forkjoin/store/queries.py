"""The named queries of queries.sql."""

import sqlite3
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Any

import aiosql

from forkjoin.core.model import Agent
from forkjoin.store import rows


class Queries:
    """The named queries on one connection, each a method: `q.agent_numbered(number=1)`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        file = str(resources.files("forkjoin.store") / "queries.sql")
        self._named: Any = aiosql.from_path(file, "sqlite3", mandatory_parameters=False)  # pyright: ignore[reportUnknownMemberType]
        self._connection = connection

    def __getattr__(self, query: str) -> Callable[..., Any]:
        return partial(getattr(self._named, query), self._connection)

    def agent(self, number: int) -> Agent:
        """Return the agent's record, with the changes of the current transaction."""
        return rows.agent(self.agent_numbered(number=number))
