"""Watching: list_agents, wait_agents and get_status."""

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Literal

from anyio import to_thread
from forkjoin.agent.prepare import handle_of
from forkjoin.agent.wait import wait
from forkjoin.branch import git
from forkjoin.error import CallerError, GitError
from forkjoin.model import Agent, Merge, State, Verify, number_of
from forkjoin.record.damage import find_trouble
from forkjoin.version import __version__
from pydantic import BaseModel, Field

from forkjoin_tools.desk import Desk, Ids
from forkjoin_tools.size import fit
from forkjoin_tools.strict import Arguments, StrictTool, make_tool

_PAGE = 50
_MOST = 200
_TAIL_BYTES = 400
#: How many of those that can't be carried on are named.
_HELD_UP_NAMED = 10
#: What a wait tells at once; of more ends than that the rest is told by the next.
_ENDS_BYTES, _PENDING_BYTES = 40_000, 15_000
#: Bytes of a page of the list.
_PAGE_BYTES = 20_000


def tools() -> list[StrictTool]:
    return [
        make_tool(wait_agents, reads_only=True, always_loaded=True),
        make_tool(list_agents, reads_only=True),
        make_tool(get_status, reads_only=True),
    ]


# -- wait_agents


class Wait(Arguments):
    ids: Ids | None = Field(None, description="Default: all of yours under way, and ends you were not told yet.")
    until: Literal["all", "any"] = "all"
    timeout_s: Annotated[float, Field(ge=0, le=3600)] = 600


class Finished(BaseModel):
    id: str
    name: str
    state: State
    summary: str
    verify: Verify


class Pending(BaseModel):
    id: str
    name: str
    state: State


class WaitedFor(BaseModel):
    finished: list[Finished]
    pending: list[Pending]
    requests: list[str] = []  #: none yet: agents can't ask
    timed_out: bool
    more: int | None = None  #: ends, and agents pending, that there was no room for


async def wait_agents(desk: Desk, arguments: Wait) -> WaitedFor:
    """Wait until agents have ended (all, or any), then return a one-line summary of each. Blocks up to timeout_s and
    then says who is still pending; call it again to go on waiting. Cancelling it hurts no agent. Next: get_result,
    read_diff, merge_worktree."""
    caller = desk.caller
    if arguments.ids is not None:
        agents = await desk.find_all(arguments.ids)
    else:
        agents = await desk.store.untold(desk.project, caller.lead, everyone=caller.session.is_person)
    waited = await wait(desk.store, agents, arguments.until, arguments.timeout_s)
    finished = fit([await _tell(desk, agent) for agent in waited.finished], _ENDS_BYTES)
    pending = fit([Pending(id=a.id, name=a.name, state=a.state) for a in waited.pending], _PENDING_BYTES)
    desk.tell_when_written(waited.finished[: len(finished)])
    return WaitedFor(
        finished=finished,
        pending=pending,
        timed_out=not waited.is_over(arguments.until),
        more=len(agents) - len(finished) - len(pending) or None,
    )


async def _tell(desk: Desk, agent: Agent) -> Finished:
    result = await desk.store.result(agent.number)
    return Finished(
        id=agent.id,
        name=agent.name,
        state=agent.state,
        summary=result.summary if result else "",
        verify=result.verify if result else Verify.NONE,
    )


# -- list_agents


class List(Arguments):
    state: list[State] | None = None
    ids: Ids | None = None
    all: bool = Field(False, description="Removed ones too.")
    limit: Annotated[int, Field(ge=1, le=_MOST)] = _PAGE
    cursor: str | None = Field(None, description="From the last page.")


class Listed(BaseModel):
    id: str
    name: str
    agent: str
    state: State
    branch: str
    merge: Merge
    elapsed_s: int
    cost_usd: float | None = None
    last_event: str


class Listing(BaseModel):
    agents: list[Listed]
    counts: dict[str, int]
    cursor: str | None = None


async def list_agents(desk: Desk, arguments: List) -> Listing:
    """List this project's agents, newest first, with state, branch and how its merge fared; use it to find agents of an
    earlier session. To wait for ends, call wait_agents instead of this again and again."""
    if arguments.ids is not None:
        found = await desk.find_all(arguments.ids)
    else:
        found = await desk.store.agents(desk.project, everything=arguments.all)
    chosen = [agent for agent in found if not arguments.state or agent.state in arguments.state]
    below = _read_cursor(arguments.cursor)
    rest = chosen if below is None else [agent for agent in chosen if agent.number < below]
    page = fit([await _listed(desk, agent) for agent in rest[: arguments.limit]], _PAGE_BYTES)
    counts = {state.value: sum(agent.state is state for agent in found) for state in State}
    more = rest[len(page) :] if page else []
    return Listing(
        agents=page,
        counts={state: count for state, count in counts.items() if count},
        cursor=page[-1].id if more else None,
    )


def _read_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    number = number_of(cursor)
    if number is not None:
        return number
    raise CallerError(f"cursor {cursor[:40]!r} is none of list_agents; leave it out for the first page.")


async def _listed(desk: Desk, agent: Agent) -> Listed:
    since = agent.started or agent.created
    until = agent.ended or time.time()
    return Listed(
        id=agent.id,
        name=agent.name,
        agent=agent.spec.agent or desk.rooms.settings.default_agent,
        state=agent.state,
        branch=agent.branch,
        merge=agent.merge,
        elapsed_s=max(0, round(until - since)),
        cost_usd=agent.cost_usd,
        last_event=desk.loop.waiting.get(agent.number)
        or desk.loop.held_up.get(agent.id)
        or await _last_words(desk, agent)
        or agent.last_event,
    )


async def _last_words(desk: Desk, agent: Agent) -> str:
    """The last line that a running command has printed: it makes no events."""
    if agent.state is not State.RUNNING or desk.rooms.settings.program(agent.spec.agent).kind != "command":
        return ""
    printed = await desk.rooms.executor.read_output(handle_of(agent), -_TAIL_BYTES, _TAIL_BYTES)
    lines = printed.data.decode(errors="replace").split("\n")
    return next((" ".join(line.split())[:120] for line in reversed(lines) if line.strip()), "")


# -- get_status


class Nothing(Arguments):
    """No arguments."""


class Status(BaseModel):
    version: str
    running: int
    queued: int
    max_running: int
    waiting: str | None = None  #: why no more run, if something is queued
    projects: dict[str, list[str]]  #: what is under way in each repository
    trouble: list[str]


async def get_status(desk: Desk, arguments: Nothing) -> Status:  # noqa: ARG001
    """Tell how forkjoin itself is doing, over all projects: what runs and waits, why not more, and what is wrong."""
    live = await desk.store.live()
    reasons = list(dict.fromkeys(desk.loop.waiting.values()))
    projects = await _by_project(desk, live)
    return Status(
        version=__version__,
        running=sum(agent.state is not State.QUEUED for agent in live),
        queued=sum(agent.state is State.QUEUED for agent in live),
        max_running=desk.loop.max_running,
        waiting="; ".join(reasons) or None,
        projects=projects,
        trouble=[*await _trouble(desk), *await _not_obeyed(desk, projects)],
    )


async def _by_project(desk: Desk, live: list[Agent]) -> dict[str, list[str]]:
    numbers = dict.fromkeys(agent.project for agent in live)
    paths = {number: (await desk.store.project_numbered(number)).common_dir for number in numbers}
    return {paths[number]: [a.id for a in live if a.project == number][:_MOST] for number in numbers}


async def _not_obeyed(desk: Desk, busy: Iterable[str]) -> list[str]:
    """What is not run in the repositories where something is under way, and in the caller's own."""
    repositories = dict.fromkeys(busy)
    with suppress(CallerError):
        repositories[desk.caller.project.common_dir] = None
    lines: list[str] = []
    for repository in repositories:
        with suppress(GitError):  # it is gone
            lines += await git.warn(repository)
    return lines


async def _trouble(desk: Desk) -> list[str]:
    programs = desk.rooms.settings.programs()
    default = desk.rooms.settings.default_agent
    trouble = [] if default in programs else [f"default_agent {default!r} is none of: {', '.join(sorted(programs))}"]
    if waiting := desk.loop.waiting_landings:
        trouble.append(
            f"{waiting} merge(s) wait for their lead's environment, which a restart has lost; it comes back with its "
            "session, or with any forkjoin command in that repository"
        )
    trouble += await to_thread.run_sync(find_trouble, desk.rooms.home.records)
    held_up = list(desk.loop.held_up.values())
    more = [f"… and {len(held_up) - _HELD_UP_NAMED} more"] if len(held_up) > _HELD_UP_NAMED else []
    return [*trouble, *held_up[:_HELD_UP_NAMED], *more]
