"""wait_agents."""

import time
from collections.abc import Sequence, Set
from functools import partial
from typing import Annotated

from forkjoin.agents.budget_limits import find_budgets
from forkjoin.agents.wait_for_agents import Until, WaitResult, divide_by_end, wait
from forkjoin.core.model import Agent, State
from forkjoin.core.result import Verify
from forkjoin.scheduling.budget import BudgetGate, has_used_up_budget
from pydantic import BaseModel, Field

from forkjoin_tools.elicitation import put_to_person
from forkjoin_tools.reply_size import first_lines, fit_rows
from forkjoin_tools.requests import RequestRow, request_rows
from forkjoin_tools.status import last_event, reasons_to_wait
from forkjoin_tools.tool_call import AgentRow, Ids, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

#: Bytes of ended agents, pending agents and requests in one result. The next wait reports further ended agents.
_ENDED_BYTES, _PENDING_BYTES, _REQUESTS_BYTES = 30_000, 15_000, 10_000
#: Maximum number of agents whose records are read for one result. More would not fit.
_MOST_AGENTS = 600
#: Pending agents that a progress report describes.
_DESCRIBED = 2


class Wait(Arguments):
    ids: Ids | None = Field(None, description="Default: yours that are under way or ended unreported.")
    until: Until = "all"
    timeout_s: Annotated[float, Field(ge=0, le=3600)] = 600


class Finished(AgentRow):
    summary: str
    verify: Verify


class WaitedFor(BaseModel):
    finished: list[Finished]
    pending: list[AgentRow]
    waiting: list[str] | None = None  #: why pending agents don't run
    requests: list[RequestRow] | None = None  #: of pending agents; of other agents of the lead only unreported ones
    timed_out: bool
    more: int | None = None  #: how many ended and pending agents did not fit


@tool(reads_only=True, always_loaded=True)
async def wait_agents(call: ToolCall, arguments: Wait) -> WaitedFor:
    """Block until all (or any) agents have ended.

    Returns state, verify and a one-line summary of each. Returns early if an agent asks something (`requests`):
    answer_request, then wait again. After timeout_s, `pending` lists the agents still under way; call again.
    Cancelling harms no agent. Next: get_result, merge_worktree.
    """
    unread = 0

    async def find() -> list[Agent]:
        nonlocal unread
        found, unread = await _find_agents(call, arguments.ids)
        return found

    agents = await call.resolve_agents(find)
    waited = divide_by_end(agents)
    give_up = time.monotonic() + arguments.timeout_s

    async def ask(left_s: float) -> WaitResult | None:
        nonlocal waited
        waited = await _wait_or_elicit(call, agents, arguments.until, left_s, give_up)
        return waited if waited.ends(arguments.until) else None

    with call.without_slot(agents):
        await call.reply_wait.wait(agents, ask, lambda: _describe_wait_progress(call, waited), arguments.timeout_s)
    finished = fit_rows(await _ended_rows(call, waited.finished[:_MOST_AGENTS]), _ENDED_BYTES)
    pending = fit_rows([AgentRow.model_validate(agent) for agent in waited.pending[:_MOST_AGENTS]], _PENDING_BYTES)
    requests = fit_rows(request_rows(waited.requests, unreported=waited.news), _REQUESTS_BYTES)
    call.mark_reported_when_written(waited.finished[: len(finished)], waited.requests[: len(requests)])
    return WaitedFor(
        finished=finished,
        pending=pending,
        waiting=first_lines([*reasons_to_wait(call, waited.pending), *_advise_parent(call, waited)]) or None,
        requests=requests or None,
        timed_out=not waited.ends(arguments.until),
        more=unread + len(agents) - len(finished) - len(pending) or None,
    )


async def _find_agents(call: ToolCall, ids: list[str] | None) -> tuple[list[Agent], int]:
    """Return the agents to wait for.

    Returns also the number of ended agents that are left to the next wait.
    """
    if ids is not None:
        return await call.find_all(ids), 0
    everyone = call.caller.session.is_person
    return await call.store.agents.untold(call.project, call.caller.lead, _MOST_AGENTS, everyone=everyone)


async def _wait_or_elicit(
    call: ToolCall, agents: Sequence[Agent], until: Until, left_s: float, give_up: float
) -> WaitResult:
    """Wait until there is something to report, or `left_s` have passed.

    New requests are put to the person at the client first. What the person answers is not reported.

    Args:
        give_up: The monotonic time until which the person may be asked, which may take longer than `left_s`.
    """
    end = time.monotonic() + left_s
    wait_for = partial(
        wait, call.store, agents, until, find_stuck=partial(_find_stuck, call), find_news=call.find_unreported
    )
    waited = await wait_for(timeout_s=left_s)
    while waited.news and not waited.is_over(until):
        if not await put_to_person(call, waited.news, give_up - time.monotonic()):
            return await wait_for(timeout_s=0)  # some requests may be answered by now
        waited = await wait_for(timeout_s=max(0.0, end - time.monotonic()))
    return waited


def _advise_parent(call: ToolCall, waited: WaitResult) -> list[str]:
    """Say what a calling agent can do about its own agents whose budget is spent."""
    if call.caller.session.agent is None or not (
        stuck := [agent.id for agent in waited.pending if agent.number in waited.stuck]
    ):
        return []
    advice = "call stop_agents, which keeps their work, then merge_worktree with include_failed"
    return [f"{', '.join(first_lines(stuck))}: waiting won't help, and you can't raise their budget; {advice}"]


async def _describe_wait_progress(call: ToolCall, waited: WaitResult) -> str:
    """Return how many agents have ended, and what the first pending ones do."""
    ended, left = len(waited.finished), waited.pending
    doing = [f"{agent.id} {agent.state}: {await last_event(call, agent)}" for agent in left[:_DESCRIBED]]
    return "; ".join([f"{ended} of {ended + len(left)} ended", *doing])


async def _find_stuck(call: ToolCall, pending: Sequence[Agent]) -> Set[int]:
    """Return the numbers of the agents whose budget is spent.

    Waiting for them won't help. If an agent calls, these are also agents that lack money from the budgets above them,
    no matter which others end.
    """
    held = [agent for agent in pending if agent.state in (State.PAUSED, State.QUEUED) and not agent.under_way]
    if len(held) < len(pending) or not (parent := call.caller.session.agent):
        return {agent.number for agent in held if has_used_up_budget(agent)}
    above = await call.store.agents.with_ancestors(parent.number)
    known = await find_budgets(call.services, [*above, *held])
    budgets = BudgetGate(above, known, call.services.settings.budget.reserve_usd)
    return {agent.number for agent in held if budgets.check(agent)}


async def _ended_rows(call: ToolCall, agents: Sequence[Agent]) -> list[Finished]:
    """Return the rows of ended agents, with summary and verify."""
    results = await call.store.results.get_all(agents)
    rows: list[Finished] = []
    for agent in agents:
        result = results.get(agent.number)
        summary, verify = (result.summary, result.verify) if result else ("", Verify.NONE)
        rows.append(Finished(**row_fields(agent), summary=summary, verify=verify))
    return rows
