"""While an agent's program runs: its output is read as it is written, and becomes events.

Events and the offset they came from are stored in one transaction, so that a daemon that takes over reads none twice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forkjoin.adapter.contract import Adapter
from forkjoin.agent.prepare import handle_of
from forkjoin.event import Event, TurnEnded, Unreadable, with_text
from forkjoin.lines import Lines
from forkjoin.model import Agent
from forkjoin.record.rows import Progress
from forkjoin.rooms import Rooms

#: The longest line that is read; a vendor's longest honest ones hold a file.
LINE_LIMIT = 4 * 1024 * 1024


async def listen(rooms: Rooms, adapter: Adapter, agent: Agent) -> None:
    """Read an attempt's output to its end, if it makes events; close its input once its turn is over."""
    if not adapter.MAKES_EVENTS:
        return
    store, executor, handle = rooms.store, rooms.executor, handle_of(agent)
    progress = await store.progress(agent)
    if progress.turn_end is not None:
        await executor.close_input(handle)
    lines = Lines(LINE_LIMIT, progress.offset)
    async for chunk in executor.output(handle, progress.offset):
        read = _read(adapter, lines.feed(chunk), rooms)
        if read.events:
            await store.note(agent, read.events, Progress(lines.offset, read.turn_end))
        if read.turn_end is not None:
            await executor.close_input(handle)
    read = _read(adapter, lines.rest(), rooms)
    await store.note(agent, read.events, Progress(lines.offset, read.turn_end))


@dataclass(frozen=True, slots=True)
class _Read:
    events: Sequence[tuple[Event, int]]
    turn_end: int | None


def _read(adapter: Adapter, lines: Iterable[tuple[int, bytes | None]], rooms: Rooms) -> _Read:
    events: list[tuple[Event, int]] = []
    for offset, line in lines:
        if line is None:
            events.append((Unreadable(f"a line of over {LINE_LIMIT // 1024 // 1024} MB; it is in the raw log"), offset))
        else:
            events += [(with_text(event, rooms.environments.redact), offset) for event in adapter.read(line)]
    ends = [offset for event, offset in events if isinstance(event, TurnEnded)]
    return _Read(events, ends[-1] if ends else None)


async def last_turn(rooms: Rooms, adapter: Adapter, agent: Agent) -> TurnEnded | None:
    """The end of an attempt's last turn, whole, read again from its output."""
    progress = await rooms.store.progress(agent)
    if progress.turn_end is None:
        return None
    data, _ = await rooms.executor.read_output(handle_of(agent), progress.turn_end, LINE_LIMIT + 1)
    ends = [event for event in adapter.read(data.partition(b"\n")[0]) if isinstance(event, TurnEnded)]
    return with_text(ends[-1], rooms.environments.redact) if ends else None
