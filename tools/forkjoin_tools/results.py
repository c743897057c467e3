"""get_result, read_log and read_diff."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

from forkjoin.core.client_markup import HIDDEN
from forkjoin.core.cut_text import cut_text
from forkjoin.core.error import CallerError, GitError
from forkjoin.core.event import RecordedEvent
from forkjoin.core.model import FINAL, Agent, Merge, State
from forkjoin.core.result import OUTPUT_LIMIT, Result, Usage, Verify
from forkjoin.git import diff
from forkjoin.git.worktrees.worktree_diff import read_worktree_diff
from forkjoin.workspace.agent_work import BranchMove, find_branch_move, find_result_commit
from pydantic import Field

from forkjoin_tools.candidate_comparison import CandidateRow, compare
from forkjoin_tools.reply_size import REPLY_BYTES, fit_bytes, fit_end, json_size, whole_lines
from forkjoin_tools.tool_call import AgentRow, Id, ToolCall, Usd, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

#: Bytes of a page of text, by default and at most.
PAGE_BYTES, _MOST_BYTES = 20_000, 48_000
#: Characters of output in a concise result, in a full one, and at least, however much else the result holds.
_CONCISE, _FULL, _LEAST = 2_000, OUTPUT_LIMIT, 100
#: Bytes on each side of a page that are searched for a secret which the page cuts. A private key has a few thousand.
_CONTEXT = 8 * 1024
#: The beginning of a line that looks like forkjoin's own mark for the end of a page or a cut.
_FORGED_MARK = re.compile(
    r"(?:^|(?<=[\r\v\f\x1c-\x1e\x85\u2028\u2029]))"
    rf"((?:[^\S\n]|[{HIDDEN}]|\x1b\[[\d;]*[A-Za-z]){{0,20}})\[(?=\s{{0,20}}(?:end|more|cut|stderr)\b)",
    re.IGNORECASE | re.MULTILINE,
)


# -- get_result


class GetResult(Arguments):
    id: Id
    detail: Literal["concise", "full"] = Field("concise", description="full: longer output, error and commits.")


class AgentResult(AgentRow):
    summary: str
    output: str
    commits: list[str]
    files_changed: int
    insertions: int
    deletions: int
    verify: Verify
    verify_output: str | None = None
    score: float | None = None  #: the number that the judge printed
    candidates: list[CandidateRow] | None = None  #: all candidates for the task, the best first
    branch: str
    merge: Merge
    cost_usd: Usd | None = None
    usage: Usage | None = None
    duration_s: float
    peak_memory_mb: int | None = None  #: only with detail "full"
    error: str | None = None
    warnings: list[str]


@tool(reads_only=True)
async def get_result(call: ToolCall, arguments: GetResult) -> AgentResult:
    """Get the outcome of an agent that has ended.

    Returns its last message, commits, diff size, verify, cost, error and warnings. For the changes use read_diff.
    """
    agent = await call.find(arguments.id)
    result = await call.store.results.get(agent.number)
    if result is None:
        raise CallerError(f"{agent.label} has not ended: it is {agent.state}. Call wait_agents first.")
    if agent.state in FINAL:
        call.mark_reported_when_written([agent])
        if moved := await _find_branch_move(call, agent):
            name = f"In read_diff and merge_worktree, {moved.name} names the branch as it is now."
            note = f"{str(moved).capitalize()}. {name}"
            result = replace(result, warnings=(note, *result.warnings))
    else:
        note = f"This is the result of the last attempt. The agent continues: it is {agent.state}."
        result = replace(result, warnings=(note, *result.warnings))
    length = _FULL if arguments.detail == "full" else _CONCISE
    cut = _keep_end if call.is_command_agent(agent) else _keep_beginning
    candidates = await compare(call, agent) or None
    while True:
        answer = _to_agent_result(agent, result, length, cut).model_copy(update={"candidates": candidates})
        if json_size(answer) <= REPLY_BYTES or length <= _LEAST:
            return answer
        length //= 2


def _to_agent_result(agent: Agent, result: Result, length: int, cut: Callable[[str, int, Agent], str]) -> AgentResult:
    """Return a result with shortened texts.

    `length` is the maximum for the output, and half of it for other long texts.
    """
    return AgentResult.model_validate(
        {  # of verify's output and of an error the end is kept: there a command says what went wrong
            **asdict(result),
            **row_fields(agent),
            "branch": agent.worktree.branch,
            "merge": agent.merge,
            "output": cut(result.output, length, agent),
            "commits": result.commits if length == _FULL else result.commits[:10],
            "verify_output": cut_text(result.verify_output, 0, length // 2) or None,
            "peak_memory_mb": (result.peak_memory_bytes or 0) // 1_000_000 or None if length == _FULL else None,
            "error": result.error and cut_text(result.error, 0, length // 2),
            "warnings": [warning[:500] for warning in result.warnings[:20]],
        }
    )


def _keep_beginning(text: str, length: int, agent: Agent) -> str:
    return cut_text(text, length, hint=_hint(agent))


def _keep_end(text: str, length: int, agent: Agent) -> str:
    """Return the last complete lines of a command's output. Its end says most."""
    if len(text) <= length:
        return text
    end = text[-length:]
    end = end.partition("\n")[2] or end
    before = re.match(r"\[cut: (\d+) bytes before this", text)
    return cut_text(text, 0, len(end), hint=_hint(agent), missing=int(before[1]) if before else 0)


def _hint(agent: Agent) -> str:
    return f"read_log({agent.id!r}, raw=true) has all"


# -- read_log


class ReadLog(Arguments):
    id: Id
    offset: Annotated[int, Field(ge=0)] = Field(0, description="From the previous page.")
    limit: Annotated[int, Field(ge=200, le=_MOST_BYTES)] = Field(PAGE_BYTES, description="Bytes.")
    tail: Annotated[int, Field(ge=1, le=500)] | None = Field(None, description="Only the last lines, this many.")
    raw: bool = False


@tool(reads_only=True)
async def read_log(call: ToolCall, arguments: ReadLog) -> str:
    """Read what an agent said and did, a line per event.

    Use it when an agent failed or takes long. With raw, and for command agents: what the program printed. Ends with
    the next page's offset.
    """
    agent = await call.find(arguments.id)
    read = _read_raw if arguments.raw or call.is_command_agent(agent) else _read_events
    return await read(call, agent, arguments)


async def _read_events(call: ToolCall, agent: Agent, arguments: ReadLog) -> str:
    after = arguments.offset
    if arguments.tail is not None:
        after = max(0, await call.store.events.last_number(agent.number) - arguments.tail)
    text, size = "", 0
    for event in await call.store.events.page(agent.number, after, 500):
        line = _line(event)
        size += json_size(line)
        if size > arguments.limit and text:
            break
        text += line
        after = event.number
    last = await call.store.events.last_number(agent.number)
    return _mark_page(text, after, more=after < last, live=agent.state not in FINAL)


def _line(event: RecordedEvent) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(event.at))
    return f"{moment} {event.kind}: {' '.join(event.text.split())}\n"


async def _read_raw(call: ToolCall, agent: Agent, arguments: ReadLog) -> str:
    live = agent.state not in FINAL
    handle = agent.handle if live or agent.timing.started else f"{agent.handle}-setup"  # no program was started
    if agent.state in (State.QUEUED, State.PREPARING) and agent.attempt > 1:
        handle = replace(agent, attempt=agent.attempt - 1).handle
    executor = call.services.executor
    if arguments.tail is not None:
        page = await executor.read_output(handle, -arguments.limit, arguments.limit)
        whole = fit_end(page.data, cut=page.start > 0)
        lines = b"".join(whole.splitlines(keepends=True)[-arguments.tail :])
        text = _without_cut_secrets(call, page.data.removesuffix(lines), lines, b"")
        return _mark_page(text, page.size, more=False, live=live)
    page = await executor.read_output(handle, arguments.offset, arguments.limit + _CONTEXT)
    start = min(page.start, page.size)
    data, more = _fit_page(page.data[: arguments.limit], page.size - start)
    if not page.size and not live:
        errors = await executor.read_output(handle, -PAGE_BYTES, PAGE_BYTES, errors=True)
        words = fit_end(errors.data, cut=errors.start > 0) if arguments.offset == 0 else b""
        return _mark_page(_decode_output(words), 0, more=False, live=False, note="[stderr]\n" if words else "")
    dropped = start - arguments.offset
    note = f"[cut: {dropped} bytes were dropped here]\n" if dropped > 0 else ""
    before = await executor.read_output(handle, max(0, start - _CONTEXT), min(start, _CONTEXT))
    known = before.data if before.start + len(before.data) == start else b""
    text = _without_cut_secrets(call, known, data, page.data[len(data) :])
    return _mark_page(text, start + len(data), more=more, live=live, note=note)


def _without_cut_secrets(call: ToolCall, before: bytes, page: bytes, after: bytes) -> str:
    """Return a page as text, without parts of secrets that it cuts.

    `before` and `after` are the texts around the page.
    """
    around = _decode_output(before[-_CONTEXT:]), _decode_output(page), _decode_output(after[:_CONTEXT])
    return call.services.environments.redact_edges(*around)


def _decode_output(data: bytes) -> str:
    return data.decode(errors="replace")


def _fit_page(data: bytes, size: int) -> tuple[bytes, bool]:
    """Return the beginning of some data that fits a page, and whether data is left.

    Args:
        data: The first bytes of the data.
        size: The bytes of all data.
    """
    page = fit_bytes(data)
    if len(page) < size:
        page = whole_lines(page)
    return page, len(page) < size


def _mark_page(text: str, offset: int, *, more: bool, live: bool, note: str = "") -> str:
    """Return a page between a note and a mark that says where the next page begins.

    The page can't forge the mark.

    The mark says so if the page ends in the middle of a line.
    """
    text = note + _FORGED_MARK.sub(r"\1(", text)
    if not more and not live:
        where = "end"
    else:
        within = ", in mid-line" if text and not text.endswith("\n") else ""
        where = f"{'more' if more else 'end so far, still running'}{within}: offset={offset}"
    body = text.removesuffix("\n")
    return f"{body}\n[{where}]" if text else f"[{where}]"


# -- read_diff


class ReadDiff(Arguments):
    id: Id
    offset: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=200, le=_MOST_BYTES)] = Field(PAGE_BYTES, description="Bytes.")
    path: str | None = Field(None, description="Only this file or folder.")
    stat: bool = Field(False, description="Only file names and sizes.")


@tool(reads_only=True)
async def read_diff(call: ToolCall, arguments: ReadDiff) -> str:
    """Read what an agent changed since its base, as a unified diff.

    For a running agent, its worktree as it is now. Review it before you merge. Ends with the next page's offset.
    """
    agent, commit = await call.find_at(arguments.id)
    if arguments.path is not None and "\0" in arguments.path:
        raise CallerError("path must not contain a NUL character.")
    data = await _diff(call, agent, commit, arguments.path, stat=arguments.stat)
    moved = None if commit or agent.state not in FINAL else await _find_branch_move(call, agent)
    note = f"[{moved}; below is its work until then; {moved.name} names the branch as it is now]\n" if moved else ""
    if not data:
        where = f" in {arguments.path}" if arguments.path else ""
        return f"{note}{agent.label} changed nothing{where}{'' if agent.state in FINAL else ' so far'}."
    start = min(arguments.offset, len(data))
    page, more = _fit_page(data[start : start + arguments.limit], len(data) - start)
    text = _without_cut_secrets(call, data[:start], page, data[start + len(page) :])
    return _mark_page(text, start + len(page), more=more, live=False, note=note)


async def _find_branch_move(call: ToolCall, agent: Agent) -> BranchMove | None:
    """Return how an agent's branch moved since its end, or `None` if git can't tell."""
    with suppress(GitError, OSError):
        return await find_branch_move(call.store, call.caller.project.common_dir, agent)
    return None


async def _diff(call: ToolCall, agent: Agent, commit: str | None, path: str | None, *, stat: bool) -> bytes:
    """Return the diff of an agent's work, or of its branch at a commit."""
    common_dir = call.caller.project.common_dir
    if agent.state in FINAL:
        tip = commit or await find_result_commit(call.store, agent)
        return await diff.read_diff(common_dir, agent.worktree.base, tip, path, stat=stat) if tip else b""
    if not agent.worktree.prepared:
        return b""
    return await read_worktree_diff(common_dir, Path(agent.worktree.path), agent.worktree.base, path, stat=stat)
