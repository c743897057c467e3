"""Nested spawns: agents that an agent spawns itself, within the depth and budget that it was granted.

The store counts their number (`store/new_agents.py`).
"""

from collections.abc import Sequence

from forkjoin.agents.budget_limits import find_budgets
from forkjoin.agents.dependencies import ResolvedDependencies
from forkjoin.core.agent_spec import Permissions, Spec
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.scheduling.budget import ROUNDING_USD, format_usd, sum_granted
from forkjoin.services import Services

#: The share of its budget that an agent keeps for itself unless its spec says otherwise.
_OWN_PART = 0.5


def split_budget(spec: Spec, *, converses: bool) -> Spec:
    """Split the spec's budget into the agent's own part and its grant.

    The grant is for the agents that it spawns.

    Args:
        converses: Whether the agent's program calls a model. Another program needs no part of its own.

    Raises:
        CallerError: The grant leaves nothing for the agent.
    """
    if spec.nesting is None or spec.budget_usd is None:
        return spec
    theirs = spec.nesting.budget_usd or spec.budget_usd * (1 - _OWN_PART if converses else 1)
    if theirs > spec.budget_usd or (converses and theirs == spec.budget_usd):
        raise CallerError(
            f"nesting.budget_usd ({format_usd(theirs)}) is a part of budget_usd ({format_usd(spec.budget_usd)}), "
            "and must be smaller, except for a command. Nothing was spawned."
        )
    nesting = spec.nesting.model_copy(update={"budget_usd": theirs})
    return spec.model_copy(update={"nesting": nesting, "budget_usd": spec.budget_usd - theirs if converses else None})


async def check_grant(
    services: Services, parent: Agent, specs: Sequence[Spec], afters: Sequence[ResolvedDependencies]
) -> None:
    """Check that an agent may spawn agents with these specs.

    Raises:
        CallerError: The agent may not. The message says what the agent was granted, and how much is left.
    """
    if services.settings.permissions != Permissions():
        raise CallerError(
            f"[permissions] was added to the settings after {parent.label} was spawned. Nested agents could do what it "
            "may not, so it can't spawn any. Nothing was spawned."
        )
    depth = parent.spec.nesting.depth if parent.spec.nesting else 0
    deepest = max((spec.nesting.depth for spec in specs if spec.nesting), default=0)
    if deepest >= depth:
        most = f"at most nesting.depth {depth - 1}" if depth > 1 else "no nesting"
        raise CallerError(
            f"{parent.label} was granted depth {depth}, so its agents can have {most}. Nothing was spawned."
        )
    await _check_can_start(services, parent, specs, afters)
    await _check_money(services, parent, specs)


async def _check_can_start(
    services: Services, parent: Agent, specs: Sequence[Spec], afters: Sequence[ResolvedDependencies]
) -> None:
    """Raise a CallerError if one of the agents would never start.

    An agent never starts if it depends on an agent that its parent did not spawn, or needs an ancestor's `exclusive`
    key.
    """
    before = await services.store.agents.get_all({number for after in afters for number in after.others.older})
    if strange := [agent.label for agent in before if parent.as_lead not in agent.leads]:
        raise CallerError(
            f"{', '.join(strange)}: not spawned by you. Your agents can depend on each other only, or start from a "
            "commit. Nothing was spawned."
        )
    keys = {spec.exclusive for spec in specs if spec.exclusive}
    for above in await services.store.agents.with_ancestors(parent.number):
        if above.spec.exclusive in keys:
            raise CallerError(
                f"{above.label} holds the key {above.spec.exclusive!r} until its end. Leave `exclusive` out. Nothing "
                "was spawned."
            )


async def _check_money(services: Services, parent: Agent, specs: Sequence[Spec]) -> None:
    """Raise a CallerError if the new agents' budgets exceed the rest of the grant."""
    theirs = sum(spec.nesting.budget_usd or 0 for spec in specs if spec.nesting)
    wanted = sum(spec.budget_usd or 0 for spec in specs) + theirs
    live = [agent for agent in await services.store.agents.live() if parent.as_lead in agent.leads]
    budgets = await find_budgets(services, live) if wanted else []
    for granted in budgets:
        if granted.lead == parent.as_lead and granted.limit_usd is not None:
            left = granted.limit_usd - granted.spent_usd - sum_granted(parent, live, budgets)
            if wanted > left + ROUNDING_USD:
                raise CallerError(
                    f"{parent.label} was granted {format_usd(granted.limit_usd)} for its agents: "
                    f"{format_usd(max(0, left))} are left, and {format_usd(wanted)} were asked for. "
                    "Nothing was spawned."
                )
