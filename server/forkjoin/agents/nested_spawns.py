"""Nested spawns: agents that an agent spawns itself, within the depth and the budget that it was granted.

`store/new_agents.py` checks that it spawns no more agents than it was granted.
"""

from collections.abc import Sequence

from forkjoin.agents.budget_limits import find_budgets
from forkjoin.agents.dependencies import ResolvedDependencies
from forkjoin.core.agent_spec import Permissions, Spec
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.scheduling.budget import ROUNDING_USD, format_usd, sum_granted
from forkjoin.services import Services

#: The share of a budget that is for the agent itself unless its spec says how much its nested agents may spend.
_OWN_SHARE = 0.5


def split_budget(spec: Spec, budget_usd: float | None, *, converses: bool) -> Spec:
    """Return the spec with this budget, split into the agent's own part and its grant.

    The agent's own part becomes `budget_usd`. The grant, for the agents that it spawns, becomes `nesting.budget_usd`.

    Args:
        budget_usd: The budget for the agent and its nested agents together; `None` for no limit.
        converses: Whether the agent's program calls a model. Any other program needs no part of its own.

    Raises:
        CallerError: The grant that the spec names leaves nothing for the agent.
    """
    if spec.nesting is None or budget_usd is None:
        return spec.model_copy(update={"budget_usd": budget_usd})
    grant = spec.nesting.budget_usd or budget_usd * (1 - _OWN_SHARE if converses else 1)
    if grant > budget_usd or (converses and grant == budget_usd):
        raise CallerError(
            f"nesting.budget_usd ({format_usd(grant)}) is a part of budget_usd ({format_usd(budget_usd)}), "
            "and must be smaller, except for a command. Nothing was spawned."
        )
    nesting = spec.nesting.model_copy(update={"budget_usd": grant})
    return spec.model_copy(update={"nesting": nesting, "budget_usd": budget_usd - grant if converses else None})


async def check_grant(
    services: Services, parent: Agent, specs: Sequence[Spec], afters: Sequence[ResolvedDependencies]
) -> None:
    """Check that an agent may spawn agents with these specs.

    Raises:
        CallerError: A spec exceeds what `parent` was granted, or one of the agents could never start.
    """
    if services.settings.permissions != Permissions():
        raise CallerError(
            f"[permissions] was added to the settings after {parent.label} was spawned. Its nested agents could do "
            f"what {parent.label} may not do, so it can't spawn any. Nothing was spawned."
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
    """Raise a CallerError if one of the agents might never start.

    It might never start if it depends on an agent that the parent or its descendants did not spawn: that agent may wait
    for the parent. It never starts if it needs the `exclusive` key of the parent or an ancestor.
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
    granted_on = sum(spec.nesting.budget_usd or 0 for spec in specs if spec.nesting)
    wanted = sum(spec.budget_usd or 0 for spec in specs) + granted_on
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
