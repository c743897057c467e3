"""A simulated clock that jumps from one planned event to the next."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True, slots=True)
class Event:
    """A planned call, and its time."""

    at: float
    number: int
    act: Callable[[], None] = field(compare=False)
    is_cancelled: bool = field(default=False, compare=False)


class Clock:
    """A clock in seconds since the epoch, which begins at `begin`. It can replace the module `time`.

    Attributes:
        planned: Number of events that were planned so far.
    """

    def __init__(self, begin: float) -> None:
        self.now = self._begin = begin
        self.planned = 0
        self._events: list[Event] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def plan(self, seconds: float, act: Callable[[], None]) -> Event:
        """Plan a call at this number of seconds after the beginning."""
        self.planned += 1
        event = Event(self._begin + seconds, self.planned, act)
        heapq.heappush(self._events, event)
        return event

    def next_event(self) -> Event | None:
        """Return the next event, or `None` if there is none."""
        while self._events and self._events[0].is_cancelled:
            heapq.heappop(self._events)
        return self._events[0] if self._events else None

    def advance(self) -> None:
        """Set the clock to the time of the next event, and run that event."""
        event = heapq.heappop(self._events)
        self.now = event.at
        event.act()
