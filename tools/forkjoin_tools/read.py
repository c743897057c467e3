"""Reading what came of an agent: get_result, read_log and read_diff."""

import re
import string
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from forkjoin.agent.prepare import handle_of
from forkjoin.branch import diff
from forkjoin.error import CallerError
from forkjoin.event import Recorded
from forkjoin.model import FINAL, OUTPUT_LIMIT, Agent, Merge, Result, State, Usage, Verify
from pydantic import BaseModel, Field

from forkjoin_tools.desk import Desk, Id
from forkjoin_tools.size import ROOM, fit_bytes, wire_size
from forkjoin_tools.strict import Arguments, StrictTool, make_tool

#: Bytes of a page of text.
PAGE_BYTES = 20_000
_MOST_BYTES = 48_000
_CONCISE = 2_000
_FULL = OUTPUT_LIMIT
#: What keys are made of.
_WORD = (string.ascii_letters + string.digits + "_-./+=~").encode()


def tools() -> list[StrictTool]:
    return [
        make_tool(get_result, reads_only=True),
        make_tool(read_diff, reads_only=True),
        make_tool(read_log, reads_only=True),
    ]


# -- get_result


class GetResult(Arguments):
    id: Id
    detail: Literal["concise", "full"] = Field("concise", description="full: longer output, error and commits.")


class AgentResult(BaseModel):
    id: str
    name: str
    state: State
    summary: str
    output: str
    commits: list[str]
    files_changed: int
    insertions: int
    deletions: int
    verify: Verify
    verify_output: str | None = None
    branch: str
    merge: Merge
    cost_usd: float | None = None
    usage: Usage | None = None
    duration_s: float
    error: str | None = None
    warnings: list[str]


async def get_result(desk: Desk, arguments: GetResult) -> AgentResult:
    """Get what came of an agent that has ended: its last message, commits, size of the diff, verify, cost, error and
    warnings. Small; for the changes themselves call read_diff."""
    agent = await desk.find(arguments.id)
    result = await desk.store.result(agent.number)
    if result is None or agent.state not in FINAL:
        raise CallerError(f"{agent.label} has not ended yet: it is {agent.state}. Call wait_agents first.")
    desk.tell_when_written([agent])
    room = _FULL if arguments.detail == "full" else _CONCISE
    program = desk.rooms.settings.programs().get(agent.spec.agent or desk.rooms.settings.default_agent)
    cut = _cut_before if program and program.kind == "command" else _cut
    while wire_size(answer := _answer(agent, result, room, cut)) > ROOM:
        room //= 2
    return answer


def _answer(agent: Agent, result: Result, room: int, cut: Callable[[str, int, Agent], str]) -> AgentResult:
    """A result, with at most `room` characters of what may be long."""
    return AgentResult(
        id=agent.id,
        name=agent.name,
        state=agent.state,
        summary=result.summary,
        output=cut(result.output, room, agent),
        commits=list(result.commits if room == _FULL else result.commits[:10]),
        files_changed=result.files_changed,
        insertions=result.insertions,
        deletions=result.deletions,
        verify=result.verify,
        verify_output=_end(result.verify_output, room // 2) or None,
        branch=agent.branch,
        merge=agent.merge,
        cost_usd=result.cost_usd,
        usage=result.usage,
        duration_s=result.duration_s,
        error=result.error and _end(result.error, room // 2),
        warnings=[warning[:500] for warning in result.warnings[:20]],
    )


def _cut(text: str, room: int, agent: Agent) -> str:
    if len(text) <= room:
        return text
    return f"{text[:room]}\n[cut: {len(text) - room} more characters; read_log({agent.id!r}, raw=true) has all]"


def _cut_before(text: str, room: int, agent: Agent) -> str:
    """The end of what a command printed, in whole lines: that is what it ended with."""
    if len(text) <= room:
        return text
    end = text[-room:]
    end = end.partition("\n")[2] or end
    before = re.match(r"\[cut: (\d+) bytes before this", text)
    more = len(text) - len(end) + (int(before[1]) if before else 0)
    return f"[cut: {more} more characters; read_log({agent.id!r}, raw=true) has all]\n{end}"


def _end(text: str, room: int) -> str:
    """The end of what a command printed: that is where it says what went wrong."""
    return text if len(text) <= room else f"[…] {text[-room:]}"


# -- read_log


class ReadLog(Arguments):
    id: Id
    offset: Annotated[int, Field(ge=0)] = Field(0, description="From the last page; 0: from the beginning.")
    limit: Annotated[int, Field(ge=200, le=_MOST_BYTES)] = Field(PAGE_BYTES, description="Bytes.")
    tail: Annotated[int, Field(ge=1, le=500)] | None = Field(None, description="Only the last lines, so many.")
    raw: bool = Field(False, description="The program's output as it was.")


async def read_log(desk: Desk, arguments: ReadLog) -> str:
    """Read what an agent said and did, a line per event; use it when one failed or takes long. Of a command agent, and
    with raw, its output as it was. Ends with the offset of the next page."""
    agent = await desk.find(arguments.id)
    program = desk.rooms.settings.program(agent.spec.agent)
    if arguments.raw or program.kind == "command":
        return await _read_raw(desk, agent, arguments)
    return await _read_events(desk, agent, arguments)


async def _read_events(desk: Desk, agent: Agent, arguments: ReadLog) -> str:
    after = arguments.offset
    if arguments.tail is not None:
        after = max(0, await desk.store.last_event_number(agent.number) - arguments.tail)
    lines: list[str] = []
    size = 0
    for event in await desk.store.events(agent.number, after, 500):
        line = _line(event)
        size += wire_size(line)
        if size > arguments.limit and lines:
            break
        lines.append(line)
        after = event.number
    last = await desk.store.last_event_number(agent.number)
    return _page("\n".join(lines), after, more=after < last, live=agent.state not in FINAL)


def _line(event: Recorded) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(event.at))
    return f"{moment} {event.kind}: {' '.join(event.text.split())}"


async def _read_raw(desk: Desk, agent: Agent, arguments: ReadLog) -> str:
    handle = handle_of(agent)
    executor = desk.rooms.executor
    if arguments.tail is not None:
        page = await executor.read_output(handle, -arguments.limit, arguments.limit)
        lines = _from_whole_line(page.data, page.start).splitlines(keepends=True)[-arguments.tail :]
        data, end = fit_bytes(b"".join(lines)), page.size
    else:
        page = await executor.read_output(handle, arguments.offset, arguments.limit)
        data = fit_bytes(page.data)
        data = _whole_lines(data, more=page.start + len(data) < page.size)
        end = min(page.start, page.size) + len(data)
    text = data.decode(errors="replace")
    if arguments.tail is None and (dropped := min(page.start, page.size) - arguments.offset) > 0:
        text = f"[cut: {dropped} bytes were dropped here]\n{text}"
    if not page.size and agent.state in FINAL:
        words = (await executor.read_output(handle, -PAGE_BYTES, PAGE_BYTES, errors=True)).data
        words = fit_bytes(words)
        text = f"[stderr]\n{words.decode(errors='replace')}" if words and arguments.offset == 0 else ""
    return _page(text, end, more=end < page.size, live=agent.state not in FINAL)


def _from_whole_line(page: bytes, start: int) -> bytes:
    """The page without the end of the line, or else of the word, in whose midst it may begin: it may be half a key."""
    return page.partition(b"\n")[2] or page.lstrip(_WORD) or page if start else page


def _whole_lines(page: bytes, *, more: bool) -> bytes:
    """The page without the line that it would cut in two, or else the word, unless that is all there is.

    Half a key is not known for one, and its other half would be on the next page.
    """
    return page[: page.rfind(b"\n") + 1] or page.rstrip(_WORD) or page if more else page


def _page(text: str, offset: int, *, more: bool, live: bool) -> str:
    if more:
        where = f"more: offset={offset}"
    elif live:
        where = f"end so far, still running: offset={offset}"
    else:
        where = "end"
    body = text.removesuffix("\n")
    return f"{body}\n[{where}]" if body else f"[{where}]"


# -- read_diff


class ReadDiff(Arguments):
    id: Id
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=200, le=_MOST_BYTES)] = Field(PAGE_BYTES, description="Bytes.")
    path: str | None = Field(None, description="Only this file or folder.")
    stat: bool = Field(False, description="Only names and sizes.")


async def read_diff(desk: Desk, arguments: ReadDiff) -> str:
    """Read what an agent changed since its base, as a unified diff (or only names and sizes, with stat); of a running
    one, its worktree as it is now. Review it before you merge. Ends with the offset of the next page."""
    agent = await desk.find(arguments.id)
    if arguments.path is not None and "\0" in arguments.path:
        raise CallerError("path must not contain a NUL character.")
    data = await _diff(desk, agent, arguments.path, stat=arguments.stat)
    page = fit_bytes(data[arguments.offset : arguments.offset + arguments.limit])
    page = _whole_lines(page, more=arguments.offset + len(page) < len(data))
    end = min(arguments.offset, len(data)) + len(page)
    if not data:
        return f"{agent.label} changed nothing{f' in {arguments.path}' if arguments.path else ''} so far."
    return _page(page.decode(errors="replace"), end, more=end < len(data), live=False)


async def _diff(desk: Desk, agent: Agent, path: str | None, *, stat: bool) -> bytes:
    result = await desk.store.result(agent.number)
    common_dir = desk.caller.project.common_dir
    if agent.state in FINAL:
        tip = result.commit if result else None
        return await diff.text(common_dir, agent.base, tip, path, stat=stat) if tip else b""
    if agent.state in (State.QUEUED, State.PREPARING):
        return b""
    return await diff.text_now(common_dir, Path(agent.worktree), agent.base, path, stat=stat)
