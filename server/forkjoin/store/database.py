"""The database of the records: one connection in one thread, and transactions that wake waiters.

What an answer promises is written with `synchronous = FULL`. Events are written with NORMAL, because the attempts'
logs hold them too.
"""

import functools
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from forkjoin.core.error import RecordsError
from forkjoin.core.model import Agent
from forkjoin.store import rows
from forkjoin.store.damage_detection import is_damage
from forkjoin.store.port_blocks import FIRST
from forkjoin.store.queries import Queries

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R", bound="Records")
log = logging.getLogger(__name__)

_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk that they are on is full; free space there",
    sqlite3.SQLITE_READONLY: "the disk that they are on can only be read; let it be written to",
    sqlite3.SQLITE_BUSY: "another program has locked them",
}


class Changes:
    """A version number of the records, and the tasks that wait for the next one."""

    def __init__(self) -> None:
        self.version = 0
        self._event = anyio.Event()

    def announce(self) -> None:
        """Count a change and wake all waiters."""
        self.version += 1
        self._event.set()
        self._event = anyio.Event()

    async def after(self, version: int) -> None:
        """Wait until there was a change after this version."""
        while self.version == version:
            await self._event.wait()

    async def until(self, ask: Callable[[], Awaitable[T | None]]) -> T:
        """Return the first answer of `ask` that is not None.

        `ask` is called now and after every change. A change while `ask` runs is not missed: `ask` is called again.
        """
        while True:
            seen = self.version
            answer = await ask()
            if answer is not None:
                return answer
            await self.after(seen)

    async def within(self, seconds: float, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """Return what `until` returns, or None after that many seconds.

        `ask` is called at least once, even if `seconds` is 0.
        """
        answer = await ask()  # called outside the cancel scope, since a scope of 0 seconds would cancel this first call
        if answer is None:
            with anyio.move_on_after(seconds):
                answer = await self.until(ask)
        return answer


class Database:
    """A connection to SQLite that is used from one thread."""

    def __init__(self, connection: sqlite3.Connection, first_port: int = FIRST) -> None:
        self.connection = connection
        self.first_port = first_port  #: the port at which the search for a free block of ports begins
        self.changes = Changes()
        self.damaged = anyio.Event()  #: set when SQLite reports damage while the database is in use
        self._queries = Queries(connection)
        self._thread = CapacityLimiter(1)

    async def close(self) -> None:
        await to_thread.run_sync(self.connection.close, limiter=self._thread)

    async def read(self, query: str, **values: object) -> Any:
        """Run a query that returns a row, a value or None."""
        return await self.in_thread(lambda: getattr(self._queries, query)(**values))

    async def read_one(self, make: Callable[[Any], T], query: str, **values: object) -> T | None:
        """Run a query and return `make` of its row or value, or None without a row."""
        found = await self.read(query, **values)
        return None if found is None else make(found)

    async def read_rows(self, query: str, **values: object) -> list[rows.Row]:
        return await self.in_thread(lambda: list(getattr(self._queries, query)(**values)))

    async def read_agents(self, query: str, **values: object) -> list[Agent]:
        return [rows.agent(row) for row in await self.read_rows(query, **values)]

    async def execute(self, query: str, *, announce: bool = True, **values: object) -> Any:
        """Run one query in a transaction of its own, and return what the query returns."""
        return await self.write(query, lambda q: getattr(q, query)(**values), announce=announce)

    async def write(
        self,
        name: str,
        act: Callable[[Queries], T],
        *,
        durable: bool = True,
        announce: bool = True,
        commit: bool = True,
    ) -> T:
        """Run `act` in one transaction, and return what `act` returns.

        Args:
            name: The name of the write, for the log and for tests that kill the daemon at it.
            durable: Whether the change must be on disk when this returns.
            announce: Whether to wake those who wait for a change.
            commit: If false, the transaction is rolled back: the result shows what would be recorded.

        Raises:
            RecordsError: SQLite failed; nothing was changed.
        """
        try:
            result = await self.in_thread(lambda: self._transact(act, durable=durable, commit=commit))
        except RecordsError as error:
            log.warning("%s could not be recorded: %s", name, error.__cause__)
            raise
        if commit and announce:
            self.changes.announce()
        return result

    def _transact(self, act: Callable[[Queries], T], *, durable: bool, commit: bool) -> T:
        self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            result = act(self._queries)
            self.connection.execute("COMMIT" if commit else "ROLLBACK")
        except BaseException:
            if self.connection.in_transaction:  # if the disk is full, SQLite has already rolled the transaction back
                self.connection.execute("ROLLBACK")
            raise
        return result

    async def in_thread(self, act: Callable[[], T]) -> T:
        """Run `act` in the database's thread, and return what `act` returns.

        Waits for the end of `act` even if the task is cancelled.

        Raises:
            RecordsError: SQLite failed.
        """
        try:
            return await to_thread.run_sync(act, limiter=self._thread)
        except sqlite3.Error as error:
            if is_damage(error):
                self.damaged.set()
            raise RecordsError(_explain(error)) from error


class Records:
    """The base class of the store's parts, each of which reads and writes the records of one subject."""

    def __init__(self, database: Database) -> None:
        self._database = database


def transaction(
    *, announce: bool = True
) -> Callable[[Callable[Concatenate[R, Queries, P], T]], Callable[Concatenate[R, P], Coroutine[Any, Any, T]]]:
    """Turn a method that takes the queries into an async method.

    The async method runs the method in one transaction.
    """

    def decorate(act: Callable[Concatenate[R, Queries, P], T]) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
        @functools.wraps(act)
        async def write(self: R, /, *arguments: P.args, **named: P.kwargs) -> T:
            database = self._database  # pyright: ignore[reportPrivateUsage]
            return await database.write(
                act.__qualname__, lambda q: act(self, q, *arguments, **named), announce=announce
            )

        return write

    return decorate


def _explain(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    return str(error) if code is None else _REMEDIES.get(code & 0xFF, str(error))
