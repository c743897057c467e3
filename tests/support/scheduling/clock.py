"""A clock that stands still but for what is to happen, one after the other."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class Event:
    """What happens, and when."""

    at: float
    number: int
    act: Callable[[], None] = field(compare=False)
    is_off: bool = field(default=False, compare=False)


class Clock:
    """Seconds since the epoch, from `begin` on; it passes for the module `time`, too.

    Attributes:
        planned: How much was planned so far.
    """

    def __init__(self, begin: float) -> None:
        self.now = self._begin = begin
        self.planned = 0
        self._events: list[Event] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def at(self, seconds: float, act: Callable[[], None]) -> Event:
        """Let this happen so many seconds after the beginning."""
        self.planned += 1
        event = Event(self._begin + seconds, self.planned, act)
        heapq.heappush(self._events, event)
        return event

    def following(self) -> Event | None:
        """What happens next."""
        while self._events and self._events[0].is_off:
            heapq.heappop(self._events)
        return self._events[0] if self._events else None

    def pass_to_following(self) -> None:
        """Let what follows happen, at its time."""
        event = heapq.heappop(self._events)
        self.now = event.at
        event.act()
