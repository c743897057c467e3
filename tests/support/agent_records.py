"""Agents for tests of pure code."""

from collections.abc import Sequence

from forkjoin.core.agent_spec import SpecParts
from forkjoin.core.model import Agent, Merge, Removal, State


def make_agent(
    number: int,
    *,
    state: State = State.QUEUED,
    lead: str = "lead",
    after: Sequence[int] = (),
    account: str = "",
    frozen: bool = False,
    not_before: float = 0,
    attempt: int = 1,
    cost_usd: float | None = None,
    reserved_usd: float = 0,
    ending: bool = False,
    above: tuple[str, ...] = (),
    **spec: object,
) -> Agent:
    """An agent's record, as far as a decision looks at it; `spec` is what its spec says."""
    parts = SpecParts.model_validate(spec)
    return Agent(
        number=number,
        project=1,
        lead=lead,
        name=f"agent-{number}",
        spec=parts,
        state=state,
        merge=Merge.UNMERGED,
        base="0" * 40,
        branch=f"forkjoin/a{number}-agent-{number}",
        worktree=f"/worktrees/a{number}",
        checkout="/checkout",
        conversation="00000000-0000-0000-0000-000000000000",
        environment="",
        attempt=attempt,
        prepared=True,
        stop_asked=False,
        created=0.0,
        started=0.0 if attempt > 1 else None,
        ended=None,
        removing=Removal.NONE,
        removed=None,
        last_event="",
        cost_usd=cost_usd,
        after=tuple(after),
        account=account,
        frozen=frozen,
        not_before=not_before,
        budget_usd=parts.budget_usd,
        reserved_usd=reserved_usd,
        ending=ending,
        above=above,
    )
