"""Waiting for the records to change."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


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
