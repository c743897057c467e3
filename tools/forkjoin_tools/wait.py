"""Waiting for agents: wait_agents."""

import time
from collections.abc import Sequence, Set
from functools import partial
from typing import Annotated

from forkjoin.agents.budgets import find_budgets
from forkjoin.agents.wait import Until, Waited, divide, wait
from forkjoin.core.model import Agent, State, Verify
from forkjoin.scheduling.budget import BudgetGate, has_used_up_budget
from pydantic import BaseModel, Field

from forkjoin_tools.elicitation import put_to_person
from forkjoin_tools.reply_size import first_lines, fit
from forkjoin_tools.requests import RequestRow, request_rows
from forkjoin_tools.status import last_event, why_they_wait
from forkjoin_tools.tool_call import AgentRow, Ids, ToolCall, row_fields
from forkjoin_tools.tool_definition import Arguments, tool

#: What a wait tells at once; of more ends than that the rest is told by the next.
_ENDS_BYTES, _PENDING_BYTES, _REQUESTS_BYTES = 30_000, 15_000, 10_000
#: More ends, or agents pending, than there is room for: of these not even the records are read.
_MOST = 600
#: How many of those that a wait is still for say what they do, to a client that wants to know how far it is.
_AT_IT = 2


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
    waiting: list[str] | None = None  #: why those that are pending do not run
    requests: list[RequestRow] | None = None  #: what those ask that are pending, and what others ask that was not told
    timed_out: bool
    more: int | None = None  #: ends, and agents pending, that there was no room for


@tool(reads_only=True, always_loaded=True)
async def wait_agents(call: ToolCall, arguments: Wait) -> WaitedFor:
    """Block until all (or any) agents have ended; returns state, verify and a one-line summary of each. Returns early
    if an agent asks something (`requests`): answer_request, then wait again. After timeout_s, `pending` lists the
    agents still under way; call again. Cancelling harms no agent. Next: get_result, merge_worktree."""
    left_out = 0

    async def find() -> list[Agent]:
        nonlocal left_out
        found, left_out = await _whom(call, arguments.ids)
        return found

    agents = await call.resolve_agents(find)
    waited, give_up = divide(agents), time.monotonic() + arguments.timeout_s

    async def ask(left_s: float) -> Waited | None:
        nonlocal waited
        waited = await _wait(call, agents, arguments.until, left_s, give_up)
        return waited if waited.ends(arguments.until) else None

    with call.without_slot(agents):
        await call.reply_wait.wait(agents, ask, lambda: _how_far(call, waited), arguments.timeout_s)
    finished = fit(await _finished(call, waited.finished[:_MOST]), _ENDS_BYTES)
    pending = fit([AgentRow.model_validate(agent) for agent in waited.pending[:_MOST]], _PENDING_BYTES)
    requests = fit(request_rows(waited.requests, news=waited.news), _REQUESTS_BYTES)
    call.mark_reported_when_written(waited.finished[: len(finished)], waited.requests[: len(requests)])
    return WaitedFor(
        finished=finished,
        pending=pending,
        waiting=first_lines([*why_they_wait(call, waited.pending), *_what_to_do(call, waited)]) or None,
        requests=requests or None,
        timed_out=not waited.ends(arguments.until),
        more=left_out + len(agents) - len(finished) - len(pending) or None,
    )


async def _whom(call: ToolCall, asked: list[str] | None) -> tuple[list[Agent], int]:
    """Return the agents to wait for, and how many ends the next wait will report."""
    if asked is not None:
        return await call.find_all(asked), 0
    everyone = call.caller.session.is_person
    return await call.store.agents.untold(call.project, call.caller.lead, _MOST, everyone=everyone)


async def _wait(call: ToolCall, agents: Sequence[Agent], until: Until, left_s: float, give_up: float) -> Waited:
    """How these stand, once there is something to tell; what a person has answered meanwhile is nothing to tell.

    Args:
        give_up: Until when a person may be asked, who takes longer than one look does.
    """
    end = time.monotonic() + left_s
    look = partial(
        wait, call.store, agents, until, find_stuck=partial(_find_stuck, call), find_news=call.find_unreported
    )
    waited = await look(timeout_s=left_s)
    while waited.news and not waited.is_over(until):
        if not await put_to_person(call, waited.news, give_up - time.monotonic()):
            return await look(timeout_s=0)  # some may be answered by now, all the same
        waited = await look(timeout_s=max(0.0, end - time.monotonic()))
    return waited


def _what_to_do(call: ToolCall, waited: Waited) -> list[str]:
    """What an agent does about those of its own that it can't give more to spend."""
    if call.caller.session.agent is None or not (
        stuck := [one.id for one in waited.pending if one.number in waited.stuck]
    ):
        return []
    what = "you can't raise it. Stop them, which keeps the work, then merge it with include_failed"
    return [f"{', '.join(first_lines(stuck))}: {what}; they don't go on by your waiting"]


async def _how_far(call: ToolCall, waited: Waited) -> str:
    """How many have ended, and what the first of the others do."""
    ended, left = len(waited.finished), waited.pending
    at_it = [f"{agent.id} {agent.state}: {await last_event(call, agent)}" for agent in left[:_AT_IT]]
    return "; ".join([f"{ended} of {ended + len(left)} ended", *at_it])


async def _find_stuck(call: ToolCall, pending: Sequence[Agent]) -> Set[int]:
    """Who of these has spent all of its own budget; for an agent also who lacks money whoever else of its own ends."""
    held = [one for one in pending if one.state in (State.PAUSED, State.QUEUED) and not one.under_way]
    if len(held) < len(pending) or not (parent := call.caller.session.agent):
        return {one.number for one in held if has_used_up_budget(one)}
    above = await call.store.agents.with_ancestors(parent.number)
    known = await find_budgets(call.services, [*above, *held])
    budgets = BudgetGate(above, known, call.services.settings.budget.reserve_usd)
    return {one.number for one in held if budgets.hold(one)}


async def _finished(call: ToolCall, agents: Sequence[Agent]) -> list[Finished]:
    """Return the row, summary and verify of each ended agent."""
    results = await call.store.results.get_all(agents)
    told: list[Finished] = []
    for agent in agents:
        result = results.get(agent.number)
        summary, verify = (result.summary, result.verify) if result else ("", Verify.NONE)
        told.append(Finished(**row_fields(agent), summary=summary, verify=verify))
    return told
