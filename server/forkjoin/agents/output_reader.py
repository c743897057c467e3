"""Reading an agent's output while its program runs, and turning it into events.

Events are stored in one transaction with the offset up to which the output was read, so that a daemon that takes over
reads no line twice. After that, a log that gets too long may drop these lines. Only the line that ended the last turn
is kept, since it is read again at the end of the attempt.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from anyio import to_thread

from forkjoin.adapters.contract import Adapter
from forkjoin.agents.rate_limits import record_rate_limit
from forkjoin.core.event import Event, RateLimited, Spent, TurnEnded, Unreadable, with_text
from forkjoin.core.line_reader import Lines
from forkjoin.core.model import Agent
from forkjoin.core.result import Usage
from forkjoin.services import Services
from forkjoin.store.rows import Cost, Progress

#: The maximum length of a line in bytes. The longest usual lines contain a whole file.
_LINE_LIMIT = 4 * 1024 * 1024
#: The number of bytes that are read of a line over the limit. They are more than a result has of a last message.
_BEGINNING = 128 * 1024
#: The number of bytes of output after which the offset is stored even if they contain no event.
_UNSTORED = 1024 * 1024


async def store_output(services: Services, adapter: Adapter, agent: Agent) -> None:
    """Read an attempt's output to its end, and store the events.

    Return when the program has ended. Its input is closed when a turn ends. The output of a program that makes no
    events is not read: then the function returns at once.
    """
    if not adapter.MAKES_EVENTS:
        return
    executor, handle = services.executor, agent.handle
    progress = await services.store.events.progress(agent)
    if progress.turn_end is not None:
        await executor.close_input(handle)
    reader = _EventReader(adapter, progress, services.environments.redact)
    reader.model = await services.store.budgets.last_model(agent)
    async for chunk in executor.output(handle, progress.offset):
        await to_thread.run_sync(reader.read, reader.lines.feed(chunk))  # takes long if the output is large
        if reader.events or reader.spent or reader.lines.needed - reader.stored >= _UNSTORED:
            await _store_events(services, agent, reader)
    reader.read(reader.lines.rest())
    await _store_events(services, agent, reader)


async def _store_events(services: Services, agent: Agent, reader: "_EventReader") -> None:
    """Store the reader's new events and costs.

    Then record refused calls, and close the input if a turn has ended.
    """
    costs = await to_thread.run_sync(price, reader.spent, reader.model) if reader.spent else []
    await services.store.events.add(agent, reader.events, Progress(reader.lines.offset, reader.turn_end), costs)
    refusals = [event for event, _ in reader.events if isinstance(event, RateLimited)]
    if refusals:
        await record_rate_limit(
            services, agent, max(refusals, key=lambda refused: (refused.until or 0, refused.wait_s or 0))
        )
    reader.model = next((part.model for part in reversed(reader.spent) if part.begins), reader.model)
    if any(isinstance(event, TurnEnded) for event, _ in reader.events):
        await services.executor.close_input(agent.handle)
    reader.events, reader.spent, reader.stored = [], [], reader.lines.needed
    kept = reader.stored if reader.turn_end is None else min(reader.stored, reader.turn_end)
    await services.executor.release_output(agent.handle, kept)


class _EventReader:
    """Turns lines of output into events.

    Attributes:
        lines: Splits the output into lines.
        events: Events that are not stored yet, with the offsets of their lines.
        spent: Usage reports that are not stored yet.
        model: The model of the last call in the stored events. Reports that name no model continue this call.
        stored: The offset up to which all events are stored.
        turn_end: The offset of the line that ended the last turn, or `None` if no turn has ended.
    """

    def __init__(self, adapter: Adapter, progress: Progress, redact: Callable[[str], str]) -> None:
        self.lines = Lines(_LINE_LIMIT, progress.offset, keep=_BEGINNING)
        self.events: list[tuple[Event, int]] = []
        self.spent: list[Spent] = []
        self.model = ""
        self.stored = progress.offset
        self.turn_end = progress.turn_end
        self._adapter = adapter
        self._redact = redact

    def read(self, lines: Iterable[tuple[int, bytes | None]]) -> None:
        """Add the events of these lines.

        Each line has its offset, and is `None` if it is too long.
        """
        for offset, line in lines:
            if line is None:
                self._add(Unreadable(f"a line of over {_LINE_LIMIT // 1024 // 1024} MB; it is in the raw log"), offset)
                events = self._adapter.read_beginning(self.lines.beginning)
            else:
                events = self._adapter.read(line.lstrip(b"\0"))  # a dropped part of the log reads as zeros
            for event in events:
                if isinstance(event, Spent):
                    self.spent.append(event)
                    continue
                if isinstance(event, TurnEnded):
                    self.turn_end = offset
                    if event.cost_usd is not None:
                        self.spent.clear()  # the turn's total includes these reports
                self._add(event, offset)

    def _add(self, event: Event, offset: int) -> None:
        """Add an event.

        Consecutive unreadable lines are added as one event with their number.
        """
        before = self.events[-1] if self.events else None
        if before and isinstance(event, Unreadable) and isinstance(before[0], Unreadable):
            self.events[-1] = replace(before[0], more=before[0].more + 1), before[1]
        else:
            self.events.append((with_text(event, self._redact), offset))


def price(spent: Iterable[Spent], model: str) -> list[Cost]:
    """Return the cost of each usage report, by the prices of the genai-prices package.

    Blocks.

    Args:
        model: The model of the call that the first report may continue, or "" if unknown.
    """
    costs: list[Cost] = []
    for part in spent:
        own = part.model or model
        model = own if part.begins else model
        costs.append(Cost(part.part, own, _cost(own, part.usage)))
    return costs


def _cost(model: str, usage: Usage) -> float | None:
    """Return the cost in USD, or `None` if the model's price is unknown."""
    import genai_prices  # takes 0.2 s; most daemons never need it

    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    counted = genai_prices.Usage(
        input_tokens=read,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )
    try:
        return float(genai_prices.calc_price(counted, model).total_price)
    except (LookupError, ValueError):
        return None


async def last_turn(services: Services, adapter: Adapter, agent: Agent) -> TurnEnded | None:
    """Return the event that ended the last turn, or `None` if no turn has ended.

    The event is read again from the output, because stored events are cut.
    """
    progress = await services.store.events.progress(agent)
    if progress.turn_end is None:
        return None
    page = await services.executor.read_output(agent.handle, progress.turn_end, _LINE_LIMIT + 1)
    line, ending, _ = page.data.partition(b"\n")
    whole = ending or len(line) <= _LINE_LIMIT
    events = adapter.read(line) if whole else adapter.read_beginning(line[:_BEGINNING])
    ends = [event for event in events if isinstance(event, TurnEnded)]
    if ends and page.start == progress.turn_end:
        return with_text(ends[-1], services.environments.redact)
    return await _recorded_turn(services, agent)


async def _recorded_turn(services: Services, agent: Agent) -> TurnEnded | None:
    """Return the last turn's end from the stored events, or `None` if they have none.

    This is used if the log has dropped the line that ended the turn. The stored text is cut, and a note says so.
    """
    recorded = await services.store.events.last_turn(agent)
    if recorded is None:
        return None
    output = f"{recorded.output}\n[cut here: the rest is gone, because the line was longer than a log may be]"
    return replace(recorded, output=output)
