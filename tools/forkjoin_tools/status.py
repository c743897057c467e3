"""list_agents and get_status."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import dropwhile
from typing import Annotated

from anyio import to_thread
from forkjoin.agents.budget_limits import find_budgets
from forkjoin.core.agent_spec import number_of
from forkjoin.core.error import CallerError
from forkjoin.core.merge_job import MergeJob
from forkjoin.core.model import ACTIVE, FINAL, RUNS, Agent, Budget, Merge, State
from forkjoin.git.refs import short_name
from forkjoin.scheduling.budget import format_usd, sum_reserved
from forkjoin.scheduling.gates import format_time
from forkjoin.scheduling.rate_limit_policy import RateLimit
from forkjoin.store.damage_detection import find_trouble
from forkjoin.version import __version__
from pydantic import BaseModel, Field

from forkjoin_tools.reply_size import REPLY_BYTES, first_lines, fit_end, fit_rows
from forkjoin_tools.tool_call import AgentRow, Ids, ToolCall, Usd, find_config_warnings, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

#: Agents on a page, by default and at most.
_PAGE, _MOST_AGENTS = 50, 200
#: Bytes of a page of agents for a model.
_PAGE_BYTES = 20_000
#: Bytes from the end of a command's output in which its last line is looked for.
_TAIL_BYTES = 400
#: Maximal repositories, and maximal budgets, in a status.
_MOST_PROJECTS, _MOST_BUDGETS = 20, 10


# -- list_agents


class ListAgents(Arguments):
    state: list[State] | None = None
    ids: Ids | None = None
    all: bool = Field(False, description="Include removed agents.")
    limit: Annotated[int, Field(ge=1, le=_MOST_AGENTS)] = _PAGE
    cursor: str | None = Field(None, description="From the previous page.")


class Listed(AgentRow):
    agent: str
    parent: str | None = None  #: id of the agent that spawned this one
    branch: str
    merge: Merge
    elapsed_s: int
    cost_usd: Usd | None = None
    last_event: str
    task: str  #: the beginning of the task
    conflicts: list[str] | None = None  #: agents whose work conflicts with this one's so far, with the files


class Listing(BaseModel):
    agents: list[Listed]
    counts: dict[State, int]
    requests: int | None = None  #: number of open requests
    cursor: str | None = None


@tool(reads_only=True)
async def list_agents(call: ToolCall, arguments: ListAgents) -> Listing:
    """List this project's agents, newest first, also of earlier sessions.

    Returns state, branch and merge outcome. To wait, use wait_agents.
    """
    found, counts = await (_named_page(call, arguments) if arguments.ids is not None else _next_page(call, arguments))
    shown = found[: arguments.limit]
    tasks = await call.store.agents.task_beginnings(agent.number for agent in shown)
    most_bytes = REPLY_BYTES // 2 if call.caller.session.is_command_line else _PAGE_BYTES
    page = fit_rows([await _listed_row(call, agent, tasks.get(agent.number, "")) for agent in shown], most_bytes)
    return Listing(
        agents=page,
        counts=counts,
        requests=len(await call.open_requests()) or None,
        cursor=page[-1].id if len(page) < len(found) else None,
    )


async def _next_page(call: ToolCall, arguments: ListAgents) -> tuple[list[Agent], dict[State, int]]:
    """Return the next page of agents plus one, and the number of all by state."""
    found = await call.store.agents.page(
        call.project,
        everything=arguments.all,
        states=arguments.state,
        below=call.visible_below,
        own=call.own_number,
        before=_last_shown(arguments),
        limit=arguments.limit + 1,
    )
    counts = await call.store.agents.count(
        call.project, everything=arguments.all, below=call.visible_below, own=call.own_number
    )
    return found, counts


async def _named_page(call: ToolCall, arguments: ListAgents) -> tuple[list[Agent], dict[State, int]]:
    """Return the rest of the agents named in `ids`, and the number of all by state."""
    named, last = await call.find_all(arguments.ids or []), _last_shown(arguments)
    rest = named if last is None else list(dropwhile(lambda agent: agent.number != last, named))[1:]
    page = [agent for agent in rest if not arguments.state or agent.state in arguments.state]
    return page, Counter(agent.state for agent in named)


def _last_shown(arguments: ListAgents) -> int | None:
    """Return the number of the previous page's last agent, if there is one.

    Raises:
        CallerError: The cursor is not one of list_agents.
    """
    if arguments.cursor is None:
        return None
    last = number_of(arguments.cursor)
    if last is None:
        raise CallerError(
            f"cursor {arguments.cursor[:40]!r} is not one that list_agents returned. Leave it out for the first page."
        )
    return last


async def _listed_row(call: ToolCall, agent: Agent, task: str) -> Listed:
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
    """Return the agents whose work conflicts with this one's, with the files.

    The conflicts are those of the last check. Agents that the caller doesn't see are left out. Each conflict has up to
    three files.
    """
    files = {
        pair.second if pair.first == agent.id else pair.first: ", ".join(pair.files[:3])
        for pair in call.reconciler.conflict_preview.pairs.get(agent.project, [])
        if agent.id in (pair.first, pair.second)
    }
    others = await call.store.agents.get_all(filter(None, map(number_of, files))) if files else []
    hidden = {other.id for other in others if not call.may_see(other)}
    return [f"{other}: {names}" for other, names in files.items() if other not in hidden]


async def last_event(call: ToolCall, agent: Agent) -> str:
    """Return why an agent waits, or else what it did last."""
    return (
        call.reconciler.schedule.waiting.get(agent.number)
        or call.reconciler.trouble.get(agent.id)
        or await _last_printed_line(call, agent)
        or agent.last_event
    )


async def _last_printed_line(call: ToolCall, agent: Agent) -> str:
    """Return the last line that a running command, or a worktree's setup, printed.

    Neither makes events.
    """
    is_set_up = agent.state is State.PREPARING
    if not is_set_up and (agent.state not in RUNS or not call.is_command_agent(agent)):
        return ""
    handle = f"{agent.handle}-setup" if is_set_up else agent.handle
    printed = await call.services.executor.read_output(handle, -_TAIL_BYTES, _TAIL_BYTES)
    text = fit_end(printed.data, cut=printed.start > 0).decode(errors="replace")
    lines = call.services.environments.redact(text).split(
        "\n"
    )  # before it is cut, since half a secret isn't recognized
    return next((" ".join(line.split())[:120] for line in reversed(lines) if line.strip()), "")


# -- get_status


class StatusReport(BaseModel):
    version: str
    running: int
    queued: int
    paused: int
    requests: int  #: number of open requests
    max_running: int
    waiting: list[str]  #: why queued and paused agents don't run
    rate_limits: list[str]  #: how many agents of each vendor account may run now
    budgets: list[str]  #: limited ones
    projects: dict[str, list[str]]  #: ids of agents under way, by repository; of some repositories if there are many
    merges: list[str]  #: under way and queued
    conflicts: list[str]  #: pairs of agents whose work conflicts so far, with files
    trouble: list[str]


@tool(reads_only=True)
async def get_status(call: ToolCall, arguments: Arguments) -> StatusReport:  # noqa: ARG001
    """Report on forkjoin itself, across all projects.

    Returns what runs, what waits and why, and any trouble.
    """
    live = await call.store.agents.live()
    projects = await _by_project(call, live)
    states = Counter(
        State.QUEUED if agent.number in call.services.waiting_for_environment else agent.state for agent in live
    )
    return StatusReport(
        version=__version__,
        running=sum(states[state] for state in ACTIVE),
        queued=states[State.QUEUED],
        paused=states[State.PAUSED],
        requests=len(await call.store.requests.open()),
        max_running=call.reconciler.schedule.max_running,
        waiting=first_lines(reasons_to_wait(call, live)),
        rate_limits=first_lines([_describe_limit(name, limit) for name, limit in call.services.rate_limits.items()]),
        budgets=await _describe_budgets(call, live),
        projects=projects,
        merges=first_lines([_describe_merge(job) for job in await call.store.merges.open()]),
        conflicts=first_lines(
            [
                f"{pair.first} and {pair.second}: {', '.join(pair.files[:3])}"
                for pairs in call.reconciler.conflict_preview.pairs.values()
                for pair in pairs
            ]
        ),
        trouble=[*await _find_trouble(call), *await _find_all_config_warnings(call, projects)],
    )


async def _by_project(call: ToolCall, live: list[Agent]) -> dict[str, list[str]]:
    numbers = list(dict.fromkeys(agent.project for agent in live))[:_MOST_PROJECTS]
    paths = {number: (await call.store.projects.get(number)).common_dir for number in numbers}
    return {paths[number]: [a.id for a in live if a.project == number][:_MOST_AGENTS] for number in numbers}


def _describe_merge(job: MergeJob) -> str:
    ids = first_lines([f"a{number}" for number in job.agents])
    return f"merge {job.number}: {', '.join(ids)} into {short_name(job.target)}"


def _describe_limit(name: str, limit: RateLimit) -> str:
    closed = f", none starts before {format_time(limit.closed_until)}" if limit.closed_until > time.time() else ""
    return f"{name}: {limit.max_running} at once{closed}: {limit.reason}"


async def _describe_budgets(call: ToolCall, live: list[Agent]) -> list[str]:
    own: list[int] = []
    with suppress(CallerError):  # the caller is in no repository
        own.append(call.project)
    limited = [budget for budget in await find_budgets(call.services, live, *own) if budget.limit_usd is not None]
    first = limited[:_MOST_BUDGETS]
    lines = [await _describe_budget(call, budget, sum_reserved(budget, live, limited)) for budget in first]
    return [*lines, *([f"… and {len(limited) - _MOST_BUDGETS} more"] if len(limited) > _MOST_BUDGETS else [])]


async def _describe_budget(call: ToolCall, budget: Budget, reserved_usd: float) -> str:
    where = (await call.store.projects.get(budget.project)).common_dir
    whose = f"{where}, lead {budget.lead}" if budget.lead else where
    spent = f"{format_usd(budget.spent_usd)} of {format_usd(budget.limit_usd or 0)} spent"
    return f"{whose}: {spent}, {format_usd(reserved_usd)} reserved"


def reasons_to_wait(call: ToolCall, agents: Iterable[Agent]) -> list[str]:
    """Return a line for each reason for which agents wait, beginning with their ids."""
    ids_by_reason: dict[str, list[str]] = {}
    for agent in agents:
        if why := call.reconciler.schedule.waiting.get(agent.number) or agent.pause.why:
            ids_by_reason.setdefault(why, []).append(agent.id)
    return [f"{', '.join(first_lines(ids))}: {why}" for why, ids in ids_by_reason.items()]


async def _find_all_config_warnings(call: ToolCall, busy: Iterable[str]) -> list[str]:
    """Return warnings about the git configuration of busy repositories.

    The caller's own repository is included.
    """
    repositories = dict.fromkeys(busy)
    with suppress(CallerError):  # the caller is in no repository
        repositories[call.caller.project.common_dir] = None
    return [line for repository in repositories for line in await find_config_warnings(repository)]


async def _find_trouble(call: ToolCall) -> list[str]:
    programs = call.services.settings.programs()
    default = call.services.settings.default_agent
    trouble = (
        []
        if default in programs
        else [f"default_agent {default!r} in config.toml is unknown. Known are: {', '.join(sorted(programs))}"]
    )
    if waiting := call.reconciler.merges_without_environment:
        trouble.append(
            f"{waiting} merge(s) wait for their lead's environment, which a restart has lost. Run any forkjoin command "
            "in that repository, or reconnect the lead's session"
        )
    trouble += await to_thread.run_sync(find_trouble, call.services.home.records)
    return [*trouble, *first_lines(list(call.reconciler.trouble.values()))]
