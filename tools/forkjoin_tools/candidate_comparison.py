"""The comparison of candidates for one task, as get_result returns it."""

from forkjoin.core.model import Agent, State
from forkjoin.core.result import Result, Verify
from forkjoin.scheduling.best_candidate import count_changed_lines, find_winner, rank_candidates
from pydantic import BaseModel

from forkjoin_tools.tool_call import ToolCall, Usd

#: Maximal characters of a model's name.
_MODEL_LENGTH = 100


class CandidateRow(BaseModel):
    id: str
    agent: str | None = None
    model: str | None = None
    state: State
    verify: Verify | None = None
    score: float | None = None
    lines: int | None = None  #: number of changed lines
    cost_usd: Usd | None = None
    duration_s: float | None = None
    won: bool | None = None


async def compare(call: ToolCall, agent: Agent) -> list[CandidateRow]:
    """Return a row for each candidate for an agent's task, the best first.

    Candidates that the caller doesn't see are left out, and fields with the same value for all. Returns an empty list
    if the task has only one agent.
    """
    agents = await call.store.agents.candidates(agent)
    results = await call.store.results.get_all(agents)
    ranked = rank_candidates(agents, results)
    winner = find_winner(ranked)
    rows = [
        _candidate_row(call, candidate, results.get(candidate.number), won=candidate is winner)
        for candidate in ranked
        if call.may_see(candidate)
    ]
    same = [name for name in ("agent", "model", "verify") if len({getattr(row, name) for row in rows}) == 1]
    return [row.model_copy(update=dict.fromkeys(same)) for row in rows]


def _candidate_row(call: ToolCall, agent: Agent, result: Result | None, *, won: bool) -> CandidateRow:
    return CandidateRow(
        id=agent.id,
        agent=call.program_of(agent),
        model=agent.spec.model and agent.spec.model[:_MODEL_LENGTH],
        state=agent.state,
        verify=result.verify if result else None,
        score=result.score if result else None,
        lines=count_changed_lines(result) if result else None,
        cost_usd=agent.money.cost_usd,
        duration_s=round(result.duration_s, 1) if result else None,
        won=won or None,
    )
