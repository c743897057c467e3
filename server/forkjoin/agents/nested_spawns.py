"""What an agent may spawn itself: its own agents, below it, within what it was granted; what is beyond is refused.

How many these are is counted where they are recorded (`record/nesting.py`).
"""

from collections.abc import Sequence

from forkjoin.agents.budgets import find_budgets
from forkjoin.agents.dependencies import Dependencies
from forkjoin.core.agent_spec import Permissions, Spec
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.scheduling.budget import ROUNDING_USD, format_usd, sum_granted
from forkjoin.services import Services

#: What an agent that is given money keeps of it for itself, where its spec does not say.
_OWN_PART = 0.5


def share_out(spec: Spec, *, converses: bool) -> Spec:
    """The spec, with its money in two parts: what the agent may spend itself, and what those may that it spawns.

    A program that does not converse spends nothing: all of it is for those that it spawns, or as much as is said.

    Raises:
        CallerError: The second is too much of it.
    """
    if spec.nesting is None or spec.budget_usd is None:
        return spec
    theirs = spec.nesting.budget_usd or spec.budget_usd * (1 - _OWN_PART if converses else 1)
    if theirs > spec.budget_usd or (converses and theirs == spec.budget_usd):
        raise CallerError(
            f"nesting.budget_usd ({format_usd(theirs)}) comes out of budget_usd ({format_usd(spec.budget_usd)}), "
            "and must leave something of it, but for a command. Nothing was spawned."
        )
    nesting = spec.nesting.model_copy(update={"budget_usd": theirs})
    return spec.model_copy(update={"nesting": nesting, "budget_usd": spec.budget_usd - theirs if converses else None})


async def check_granted(
    services: Services, parent: Agent, specs: Sequence[Spec], afters: Sequence[Dependencies]
) -> None:
    """See that an agent may spawn agents of these specs.

    Raises:
        CallerError: It may not; the message says what is granted and left.
    """
    if services.settings.permissions != Permissions():
        raise CallerError(
            f"The settings have [permissions] since {parent.label} was spawned: what it may not do, one that it spawns "
            "would do for it. Nothing was spawned."
        )
    depth = parent.spec.nesting.depth if parent.spec.nesting else 0
    deepest = max((spec.nesting.depth for spec in specs if spec.nesting), default=0)
    if deepest >= depth:
        most = f"at most nesting.depth {depth - 1}" if depth > 1 else "no nesting"
        raise CallerError(f"{parent.label} was granted depth {depth}: give yours {most}. Nothing was spawned.")
    await _check_may_start(services, parent, specs, afters)
    await _check_money(services, parent, specs)


async def _check_may_start(
    services: Services, parent: Agent, specs: Sequence[Spec], afters: Sequence[Dependencies]
) -> None:
    """See that none comes after what is not the parent's own, or needs a key of one above: it would never start."""
    before = await services.store.agents.get_all({number for after in afters for number in after.others.older})
    if strange := [agent.label for agent in before if parent.as_lead not in agent.leads]:
        raise CallerError(
            f"{', '.join(strange)}: no agent of yours. Yours come after, and start from, each other, or a commit "
            "alone. Nothing was spawned."
        )
    keys = {spec.exclusive for spec in specs if spec.exclusive}
    for above in await services.store.agents.with_ancestors(parent.number):
        if above.spec.exclusive in keys:
            raise CallerError(
                f"{above.label} has {above.spec.exclusive!r} to itself until its end: leave `exclusive` out. Nothing "
                "was spawned."
            )


async def _check_money(services: Services, parent: Agent, specs: Sequence[Spec]) -> None:
    """See that what these are to have is left of what was granted."""
    theirs = sum(spec.nesting.budget_usd or 0 for spec in specs if spec.nesting)
    wanted = sum(spec.budget_usd or 0 for spec in specs) + theirs
    live = [one for one in await services.store.agents.live() if parent.as_lead in one.leads]
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
