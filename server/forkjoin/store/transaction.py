"""How the records are reached: in one thread; every step is recorded by one call, `_write`, which wakes who waits."""

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
from forkjoin.store.damaged_database import is_damage
from forkjoin.store.database import Queries
from forkjoin.store.port_blocks import FIRST

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="Transactions")
log = logging.getLogger(__name__)

_WHY = {
    sqlite3.SQLITE_FULL: "the disk that they are on is full; free space there",
    sqlite3.SQLITE_READONLY: "the disk that they are on can only be read; let it be written to",
    sqlite3.SQLITE_BUSY: "another program has locked them",
}


class Changes:
    """Wakes waiters whenever the records have changed; none is missed between a look and the wait after it."""

    def __init__(self) -> None:
        self.version = 0
        self._event = anyio.Event()

    def announce(self) -> None:
        self.version += 1
        self._event.set()
        self._event = anyio.Event()

    async def after(self, version: int) -> None:
        """Return once there was a change after this version."""
        while self.version == version:
            await self._event.wait()

    async def until(self, ask: Callable[[], Awaitable[T | None]]) -> T:
        """The first answer that is not None; asked now, and again after every change."""
        while True:
            seen = self.version
            answer = await ask()
            if answer is not None:
                return answer
            await self.after(seen)

    async def within(self, seconds: float, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """As `until`, which is asked once at least; none where there is no answer after so many seconds."""
        answer = await ask()  # a scope without time would end that, too
        if answer is None:
            with anyio.move_on_after(seconds):
                answer = await self.until(ask)
        return answer


class Transactions:
    """What the store is made on. Every change of an agent or a landing wakes whoever waits for one (`changes`)."""

    def __init__(self, connection: sqlite3.Connection, first_port: int = FIRST) -> None:
        self.first_port = first_port
        self._connection = connection
        self._thread = CapacityLimiter(1)
        self._queries = Queries(connection)
        self.changes = Changes()
        self.damaged = anyio.Event()  #: set once the database is found to be damaged, in use

    async def close(self) -> None:
        await to_thread.run_sync(self._connection.close, limiter=self._thread)

    async def _read(self, query: str, **values: object) -> Any:
        return await self._in_thread(lambda: getattr(self._queries, query)(**values))

    async def _one(self, make: Callable[[Any], T], query: str, **values: object) -> T | None:
        """What is made of the one row, or value, that this query asks for, if there is one."""
        found = await self._read(query, **values)
        return None if found is None else make(found)

    async def _rows(self, query: str, **values: object) -> list[rows.Row]:
        return await self._in_thread(lambda: list(getattr(self._queries, query)(**values)))

    async def _agents(self, query: str, **values: object) -> list[Agent]:
        return [rows.agent(row) for row in await self._rows(query, **values)]

    async def _in_thread(self, act: Callable[[], T]) -> T:
        """Run `act` in the database's thread; one that was begun is waited for, cancelled or not.

        Raises:
            RecordsError: The database would not.
        """
        try:
            return await to_thread.run_sync(act, limiter=self._thread)
        except sqlite3.Error as error:
            if is_damage(error):
                self.damaged.set()
            raise RecordsError(_explain(error)) from error

    async def _write(
        self, name: str, act: Callable[[Queries], T], *, durable: bool = True, quiet: bool = False, keep: bool = True
    ) -> T:
        """Run `act` in one transaction, which is on disk when this returns (if `durable`), and tell the waiters.

        Args:
            name: Of the step that this records.
            quiet: Whether nobody waits for what this changes.
            keep: Whether it stays; else it is undone, and what `act` returns tells how it would be.
        """

        def transact() -> T:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = act(self._queries)
                self._connection.execute("COMMIT" if keep else "ROLLBACK")
            except BaseException:
                if self._connection.in_transaction:  # a full disk ends it by itself
                    self._connection.execute("ROLLBACK")
                raise
            return result

        try:
            result = await self._in_thread(transact)
        except RecordsError as error:
            log.warning("%s could not be recorded: %s", name, error.__cause__)
            raise
        if keep and not quiet:
            self.changes.announce()
        return result

    @staticmethod
    def step(
        *, quiet: bool = False
    ) -> Callable[[Callable[Concatenate[S, Queries, P], T]], Callable[Concatenate[S, P], Coroutine[Any, Any, T]]]:
        """Makes a step, of its name, of what is done with the queries in one transaction."""

        def make(act: Callable[Concatenate[S, Queries, P], T]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
            @functools.wraps(act)
            async def write(self: S, /, *arguments: P.args, **named: P.kwargs) -> T:
                return await self._write(act.__name__, lambda q: act(self, q, *arguments, **named), quiet=quiet)

            return write

        return make

    async def _set(self, query: str, *, quiet: bool = False, **values: object) -> Any:
        """Run this one query as a step of its name; what it answers."""
        return await self._write(query, lambda q: getattr(q, query)(**values), quiet=quiet)


def _explain(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    return str(error) if code is None else _WHY.get(code & 0xFF, str(error))
