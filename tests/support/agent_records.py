"""Agents' records for tests of pure code."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from forkjoin.core.agent_spec import SpecParts
from forkjoin.core.model import (
    Agent,
    AgentWorktree,
    Candidates,
    ConflictToResolve,
    Dependencies,
    History,
    Lineage,
    Merge,
    Money,
    Pause,
    PauseKind,
    Removal,
    State,
    Timing,
)


def make_agent(
    number: int,
    *,
    state: State = State.QUEUED,
    lead: str = "lead",
    after: Sequence[int] = (),
    account: str = "",
    kind: PauseKind = PauseKind.RESTING,
    not_before: float = 0,
    attempt: int = 1,
    cost_usd: float | None = None,
    reserved_usd: float = 0,
    above: tuple[str, ...] = (),
    **spec: object,
) -> Agent:
    """Return an agent's record with these values for the scheduler.

    `spec` holds fields of the agent's spec.
    """
    parts = SpecParts.model_validate(spec)
    return Agent(
        number=number,
        project=1,
        lead=lead,
        name=f"agent-{number}",
        spec=parts,
        state=state,
        merge=Merge.UNMERGED,
        attempt=attempt,
        conversation="00000000-0000-0000-0000-000000000000",
        environment="",
        account=account,
        stop_asked=False,
        removing=Removal.NONE,
        last_event="",
        worktree=AgentWorktree(
            path=f"/worktrees/a{number}",
            branch=f"forkjoin/a{number}-agent-{number}",
            base="0" * 40,
            checkout="/checkout",
            prepared=True,
        ),
        timing=Timing(created=0.0, started=0.0 if attempt > 1 else None),
        pause=Pause(kind=kind, not_before=not_before),
        money=Money(budget_usd=parts.budget_usd, reserved_usd=reserved_usd, cost_usd=cost_usd),
        lineage=Lineage(above=above),
        dependencies=Dependencies(after=tuple(after)),
        candidates=Candidates(),
        conflict=ConflictToResolve(),
        history=History(),
    )


#: For each field of a part of the record, the name of that part in `Agent`.
_PARTS = {
    field.name: part
    for part, kind in {
        "timing": Timing,
        "pause": Pause,
        "money": Money,
        "lineage": Lineage,
        "dependencies": Dependencies,
        "history": History,
        "worktree": AgentWorktree,
    }.items()
    for field in fields(kind)
}


def change(agent: Agent, **values: Any) -> Agent:
    """Return a copy of the agent with these values of its fields or its parts' fields."""
    for name, value in values.items():
        if name in Agent.__dataclass_fields__:
            agent = replace(agent, **{name: value})
        else:
            part = _PARTS[name]
            agent = replace(agent, **{part: replace(getattr(agent, part), **{name: value})})
    return agent
