"""Looking: list_agents and get_status."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import dropwhile
from typing import Annotated

from anyio import to_thread
from forkjoin.agents.budgets import find_budgets
from forkjoin.core.agent_spec import number_of
from forkjoin.core.error import CallerError
from forkjoin.core.model import ACTIVE, FINAL, RUNS, Agent, Budget, Merge, MergeJob, State
from forkjoin.git.refs import short_name
from forkjoin.scheduling.budget import format_usd, sum_reserved
from forkjoin.scheduling.gates import format_time
from forkjoin.scheduling.rate_limit_policy import RateLimit
from forkjoin.store.damaged_database import find_trouble
from forkjoin.version import __version__
from pydantic import BaseModel, Field

from forkjoin_tools.reply_size import REPLY_BYTES, first_lines, fit_end, fit_rows
from forkjoin_tools.tool_call import AgentRow, Ids, ToolCall, Usd, find_config_warnings, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

_PAGE = 50
_MOST = 200
_TAIL_BYTES = 400
#: How many repositories a status tells of.
_PROJECTS = 20
#: How many budgets a status tells of.
_BUDGETS = 10
#: Bytes of a page of the list.
_PAGE_BYTES = 20_000


# -- list_agents


class List(Arguments):
    state: list[State] | None = None
    ids: Ids | None = None
    all: bool = Field(False, description="Include removed agents.")
    limit: Annotated[int, Field(ge=1, le=_MOST)] = _PAGE
    cursor: str | None = Field(None, description="From the previous page.")


class Listed(AgentRow):
    agent: str
    parent: str | None = None  #: the agent that has spawned it
    branch: str
    merge: Merge
    elapsed_s: int
    cost_usd: Usd | None = None
    last_event: str
    task: str  #: its beginning
    conflicts: list[str] | None = None  #: with whose work its own conflicts so far, and in which files


class Listing(BaseModel):
    agents: list[Listed]
    counts: dict[State, int]
    requests: int | None = None  #: how many are open
    cursor: str | None = None


@tool(reads_only=True)
async def list_agents(call: ToolCall, arguments: List) -> Listing:
    """List this project's agents, newest first, also of earlier sessions.

    Returns state, branch and merge outcome. To wait, use wait_agents.
    """
    found, counts = await (_named(call, arguments) if arguments.ids is not None else _page(call, arguments))
    shown = found[: arguments.limit]
    tasks = await call.store.agents.task_beginnings(agent.number for agent in shown)
    room = REPLY_BYTES // 2 if call.caller.session.is_command_line else _PAGE_BYTES
    page = fit_rows([await _listed(call, agent, tasks.get(agent.number, "")) for agent in shown], room)
    return Listing(
        agents=page,
        counts=counts,
        requests=len(await call.open_requests()) or None,
        cursor=page[-1].id if len(page) < len(found) else None,
    )


async def _page(call: ToolCall, arguments: List) -> tuple[list[Agent], dict[State, int]]:
    """Return the next page of agents plus one more, and the counts of all."""
    found = await call.store.agents.page(
        call.project,
        everything=arguments.all,
        states=arguments.state,
        below=call.visible_below,
        own=call.own_number,
        before=_last(arguments),
        limit=arguments.limit + 1,
    )
    counts = await call.store.agents.count(
        call.project, everything=arguments.all, below=call.visible_below, own=call.own_number
    )
    return found, counts


async def _named(call: ToolCall, arguments: List) -> tuple[list[Agent], dict[State, int]]:
    """Return the next page of the named agents, and the counts of all named."""
    named, last = await call.find_all(arguments.ids or []), _last(arguments)
    rest = named if last is None else list(dropwhile(lambda agent: agent.number != last, named))[1:]
    return [one for one in rest if not arguments.state or one.state in arguments.state], Counter(a.state for a in named)


def _last(arguments: List) -> int | None:
    """Return the number of the last page's last agent; `None` for the first page."""
    if arguments.cursor is None:
        return None
    last = number_of(arguments.cursor)
    if last is None:
        raise CallerError(f"cursor {arguments.cursor[:40]!r} is none of list_agents; leave it out for the first page.")
    return last


async def _listed(call: ToolCall, agent: Agent, task: str) -> Listed:
    since = agent.timing.started or agent.timing.created
    until = agent.timing.ended if agent.timing.ended and agent.state in FINAL else time.time()
    return Listed(
        **row_fields(agent),
        agent=call.program_of(agent),
        parent=f"a{agent.lineage.parent}" if agent.lineage.parent else None,
        branch=agent.worktree.branch,
        merge=agent.merge,
        elapsed_s=max(0, round(until - since)),
        cost_usd=agent.money.cost_usd,
        last_event=await last_event(call, agent),
        task=task,
        conflicts=first_lines(await _conflicts(call, agent)) or None,
    )


async def _conflicts(call: ToolCall, agent: Agent) -> list[str]:
    """Tell with whose work that the caller may see an agent's conflicts, as of the last look at what runs."""
    files = {
        clash.second if clash.first == agent.id else clash.first: ", ".join(clash.files[:3])
        for clash in call.reconciler.conflict_preview.pairs.get(agent.project, [])
        if agent.id in (clash.first, clash.second)
    }
    others = await call.store.agents.get_all(filter(None, map(number_of, files))) if files else []
    hidden = {other.id for other in others if not call.may_see(other)}
    return [f"{other}: {told}" for other, told in files.items() if other not in hidden]


async def last_event(call: ToolCall, agent: Agent) -> str:
    """Why an agent waits, or else what it did last."""
    return (
        call.reconciler.schedule.waiting.get(agent.number)
        or call.reconciler.trouble.get(agent.id)
        or await _last_words(call, agent)
        or agent.last_event
    )


async def _last_words(call: ToolCall, agent: Agent) -> str:
    """The last line that a running command, or the setup of a worktree, has printed: they make no events."""
    is_set_up = agent.state is State.PREPARING
    if not is_set_up and (agent.state not in RUNS or not call.is_command_agent(agent)):
        return ""
    handle = f"{agent.handle}-setup" if is_set_up else agent.handle
    printed = await call.services.executor.read_output(handle, -_TAIL_BYTES, _TAIL_BYTES)
    text = fit_end(printed.data, cut=printed.start > 0).decode(errors="replace")
    lines = call.services.environments.redact(text).split("\n")  # before it is cut: half a key is not known for one
    return next((" ".join(line.split())[:120] for line in reversed(lines) if line.strip()), "")


# -- get_status


class Status(BaseModel):
    version: str
    running: int
    queued: int
    paused: int
    requests: int  #: that agents wait for
    max_running: int
    waiting: list[str]  #: why those that are queued or paused do not run
    rate_limits: list[str]  #: what vendors take of an account for now
    budgets: list[str]  #: those that are limited
    projects: dict[str, list[str]]  #: what is under way in each repository; of many, in some
    merges: list[str]  #: those under way and queued
    conflicts: list[str]  #: whose work conflicts so far, in repositories where agents run
    trouble: list[str]


@tool(reads_only=True)
async def get_status(call: ToolCall, arguments: Arguments) -> Status:  # noqa: ARG001
    """Report on forkjoin itself, across all projects.

    Says what runs, what waits and why, and what is wrong.
    """
    live = await call.store.agents.live()
    projects = await _by_project(call, live)
    states = Counter(
        State.QUEUED if agent.number in call.services.waiting_for_environment else agent.state for agent in live
    )
    return Status(
        version=__version__,
        running=sum(states[state] for state in ACTIVE),
        queued=states[State.QUEUED],
        paused=states[State.PAUSED],
        requests=len(await call.store.requests.open()),
        max_running=call.reconciler.schedule.max_running,
        waiting=first_lines(why_they_wait(call, live)),
        rate_limits=first_lines([_limit(name, known) for name, known in call.services.rate_limits.items()]),
        budgets=await _budgets(call, live),
        projects=projects,
        merges=first_lines([_merge(landing) for landing in await call.store.merges.open()]),
        conflicts=first_lines(
            [
                f"{clash.first} and {clash.second}: {', '.join(clash.files[:3])}"
                for clashes in call.reconciler.conflict_preview.pairs.values()
                for clash in clashes
            ]
        ),
        trouble=[*await _trouble(call), *await _not_obeyed(call, projects)],
    )


async def _by_project(call: ToolCall, live: list[Agent]) -> dict[str, list[str]]:
    numbers = list(dict.fromkeys(agent.project for agent in live))[:_PROJECTS]
    paths = {number: (await call.store.projects.get(number)).common_dir for number in numbers}
    return {paths[number]: [a.id for a in live if a.project == number][:_MOST] for number in numbers}


def _merge(landing: MergeJob) -> str:
    ids = first_lines([f"a{number}" for number in landing.agents])
    return f"landing {landing.number}: {', '.join(ids)} into {short_name(landing.target)}"


def _limit(name: str, known: RateLimit) -> str:
    closed = f", none starts before {format_time(known.closed_until)}" if known.closed_until > time.time() else ""
    return f"{name}: {known.most} at once{closed}: {known.why}"


async def _budgets(call: ToolCall, live: list[Agent]) -> list[str]:
    own: list[int] = []
    with suppress(CallerError):  # who stands in no repository
        own.append(call.project)
    limited = [one for one in await find_budgets(call.services, live, *own) if one.limit_usd is not None]
    told = [await _budget(call, one, sum_reserved(one, live, limited)) for one in limited[:_BUDGETS]]
    return [*told, *([f"… and {len(limited) - _BUDGETS} more"] if len(limited) > _BUDGETS else [])]


async def _budget(call: ToolCall, budget: Budget, reserved_usd: float) -> str:
    where = (await call.store.projects.get(budget.project)).common_dir
    whose = f"{where}, lead {budget.lead}" if budget.lead else where
    told = f"{format_usd(budget.spent_usd)} of {format_usd(budget.limit_usd or 0)} spent"
    return f"{whose}: {told}, {format_usd(reserved_usd)} reserved"


def why_they_wait(call: ToolCall, agents: Iterable[Agent]) -> list[str]:
    """Each reason, with who of these waits for it."""
    whom: dict[str, list[str]] = {}
    for agent in agents:
        if why := call.reconciler.schedule.waiting.get(agent.number) or agent.pause.why:
            whom.setdefault(why, []).append(agent.id)
    return [f"{', '.join(first_lines(ids))}: {why}" for why, ids in whom.items()]


async def _not_obeyed(call: ToolCall, busy: Iterable[str]) -> list[str]:
    """What is not run in the repositories where something is under way, and in the caller's own."""
    repositories = dict.fromkeys(busy)
    with suppress(CallerError):  # who stands in none
        repositories[call.caller.project.common_dir] = None
    return [line for repository in repositories for line in await find_config_warnings(repository)]


async def _trouble(call: ToolCall) -> list[str]:
    programs = call.services.settings.programs()
    default = call.services.settings.default_agent
    trouble = [] if default in programs else [f"default_agent {default!r} is none of: {', '.join(sorted(programs))}"]
    if waiting := call.reconciler.merges_without_environment:
        trouble.append(
            f"{waiting} merge(s) wait for their lead's environment, which a restart has lost; it comes back with its "
            "session, or with any forkjoin command in that repository"
        )
    trouble += await to_thread.run_sync(find_trouble, call.services.home.records)
    return [*trouble, *first_lines(list(call.reconciler.trouble.values()))]
