"""Agents for tests of pure code."""

from forkjoin.model import Agent, Merge, SpecParts, State


def make_agent(number: int, *, state: State = State.QUEUED, priority: int = 0, task: str = "a task") -> Agent:
    """An agent's record, as far as a decision looks at it."""
    return Agent(
        number=number,
        project=1,
        lead="lead",
        name=f"agent-{number}",
        spec=SpecParts(priority=priority),
        state=state,
        merge=Merge.UNMERGED,
        base="0" * 40,
        branch=f"forkjoin/a{number}-agent-{number}",
        worktree=f"/worktrees/a{number}",
        checkout="/checkout",
        conversation="00000000-0000-0000-0000-000000000000",
        environment="",
        attempt=1,
        prepared=True,
        stop_asked=False,
        created=0.0,
        started=None,
        ended=None,
        removing=False,
        removed=None,
        last_event="",
        cost_usd=None,
    )
