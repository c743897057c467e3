"""Budgets and grants: how much money each agent may spend. Pure.

Several budgets can limit an agent: its own, and one for all agents of its lead, of each lead above that (if the lead
is an agent), and of its repository. Money is reserved for an agent, in all of these, before the agent starts. What the
agent has not spent when it ends becomes free again.

An agent with a grant may spawn agents that spend money. The grant is reserved together with the agent's own money, from
the agent's start to its end, and the money of its nested agents comes out of the grant.

If an agent has no budget of its own, but a shared budget limits it, it gets money in steps. An agent is asked to finish
when little of its money is left, and pauses when nothing is left, until it gets more. A program that uses no model
spends no money.
"""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from forkjoin.core.model import CALLING, RUNS, Agent, Budget, Pause, PauseKind, PauseReason, State
from forkjoin.scheduling.gates import Gate, Hold

#: The fraction of an agent's budget, or of a step. If less of it is left, the agent is asked to finish, and a paused
#: agent does not resume.
_LITTLE = 0.1
#: Smaller amounts are rounding errors.
ROUNDING_USD = 1e-9

#: Identifies a shared budget: a project, and a lead in it, or '' for the whole repository.
_BudgetKey = tuple[int, str]


class BudgetGate(Gate):
    """The gate that reserves money for an agent before the agent may spend it."""

    def __init__(self, live: Sequence[Agent], budgets: Iterable[Budget], step_usd: float) -> None:
        self.new_reservations: dict[int, float] = {}  #: agents' new total reservations in USD, by agent number
        self._live = live
        self._step_usd = step_usd
        limited = {_key_of(budget): budget for budget in budgets if budget.limit_usd is not None}
        self._limits = {key: budget.limit_usd or 0.0 for key, budget in limited.items()}
        self._unspent = {key: self._limits[key] - budget.spent_usd for key, budget in limited.items()}
        self._held_grants = _find_held_grants(live, self._unspent)
        self._free = dict(self._unspent)
        for agent in live:
            self._take(agent, unspent_usd(agent) + self._held_grants.get(_grant_key(agent), 0.0))
        for agent in live:
            if _may_spend(agent):
                self.on_start(agent)

    def check(self, agent: Agent) -> Hold | None:
        found = self._find_reservation(agent)
        return found if isinstance(found, Hold) else None

    def on_start(self, agent: Agent) -> None:
        """Reserve the agent's grant and the money that it needs, if enough is free.

        If no budget limits the agent any more, remove its reservation.
        """
        if grant := self._grant_to_hold(agent):
            self._take(agent, grant)
            self._held_grants[_grant_key(agent)] = grant
        if not self._is_limited(agent):
            if agent.money.reserved_usd:
                self.new_reservations[agent.number] = 0.0
            return
        added = self._find_reservation(agent)
        if not isinstance(added, Hold) and abs(added) > ROUNDING_USD:
            self._take(agent, added)
            self.new_reservations[agent.number] = self._total_usd(agent) + added

    def find_pauses(self) -> Mapping[int, Pause]:
        """Return the pauses of running and frozen agents that have no money left."""
        running = [agent for agent in self._live if agent.phase in (*RUNS, PauseKind.FROZEN)]
        holds = {agent.number: self._check_running(agent) for agent in running}
        return {
            number: Pause(PauseReason.BUDGET, hold.reason, PauseKind.ENDING) for number, hold in holds.items() if hold
        }

    def find_agents_to_wind_up(self) -> tuple[int, ...]:
        """Return the numbers of running agents that should be asked to finish.

        They have little money left, and were not asked before.
        """
        running = [agent for agent in self._live if agent.state in RUNS and not agent.money.wind_up]
        return tuple(agent.number for agent in running if self._is_limited(agent) and self._has_little(agent))

    def needed_usd(self, agent: Agent) -> tuple[float, float]:
        """Return the USD to add to the agent's reservation, and the least amount.

        With less than the least amount the agent may not start or go on.
        """
        if self._is_limited(agent) and agent.money.budget_usd is not None:
            rest = max(agent.money.budget_usd, agent.money.spent_usd) - self._total_usd(agent)
            return rest, min(rest, self._step_usd * _LITTLE) if agent.has_begun else rest
        if self._is_limited(agent) and self._has_little(agent):
            return self._step_usd, self._step_usd * _LITTLE
        return 0.0, 0.0

    def _check_running(self, agent: Agent) -> Hold | None:
        """Return why the running agent has to pause, or `None` if it may go on."""
        if not self._is_limited(agent):
            return None
        is_used_up_above = any(self._unspent[key] <= ROUNDING_USD for key in self._limits_above(agent))
        is_used_up = agent.money.spent_usd >= self._total_usd(agent) - ROUNDING_USD
        return self.check(agent) if is_used_up_above or is_used_up else None

    def _find_reservation(self, agent: Agent) -> float | Hold:
        """Return how many more USD to reserve for the agent, or why it has to wait.

        The amount is negative if the agent's budget was lowered below its reservation.
        """
        grant = self._grant_to_hold(agent)
        if not self._is_limited(agent) and not grant:
            return 0.0
        if agent.money.budget_usd is not None and has_used_up_budget(agent):
            return Hold(f"its budget of {format_usd(agent.money.budget_usd)} is used up; set_budget raises it")
        wanted, least = self.needed_usd(agent)
        sources = _source_budgets(agent, self._held_grants)
        free = {key: self._free[key] if key in sources else self._unspent[key] for key in self._limits_above(agent)}
        for key, left in free.items():
            if self._unspent[key] <= ROUNDING_USD or max(0.0, left) < least + grant - ROUNDING_USD:
                return self._explain(agent, key, left, least + grant)
        return min([wanted, *(max(left - grant, least) for left in free.values())])

    def _grant_to_hold(self, agent: Agent) -> float:
        """Return the free part of the agent's grant, in USD, for the agents it spawns.

        Return 0 if the agent has no grant, or its grant is already reserved.
        """
        key = _grant_key(agent)
        return max(0.0, self._free.get(key, 0.0)) if _has_grant(agent) and key not in self._held_grants else 0.0

    def _explain(self, agent: Agent, key: _BudgetKey, left: float, needed: float) -> Hold:
        whose = "its lead's" if key[1] else "the repository's"
        problem = f"has {format_usd(max(0.0, left))} left, and it needs {format_usd(needed)}"
        held = self._held_grants.get(_grant_key(agent))
        held_too = f" in addition to the {format_usd(held)} held for its own agents" if held else ""
        what = f"{problem}{held_too}" if needed > 0 else "is used up"
        command = f"forkjoin budget --lead {shlex.quote(key[1])}" if key[1] else "forkjoin budget"
        return Hold(f"{whose} budget of {format_usd(self._limits[key])} {what}; a person raises it with: {command}")

    def _is_limited(self, agent: Agent) -> bool:
        """Return whether the agent spends money, and a budget limits how much."""
        return agent.converses and (agent.money.budget_usd is not None or bool(self._limits_above(agent)))

    def _limits_above(self, agent: Agent) -> list[_BudgetKey]:
        """Return the keys of the shared budgets that limit the agent."""
        return [key for key in _keys_above(agent.project, agent.leads) if key in self._limits]

    def _total_usd(self, agent: Agent) -> float:
        """Return the agent's reservation in USD, including the spent part.

        If the agent has spent more than its reservation, return what it has spent.
        """
        reserved = agent.money.reserved_usd if _may_spend(agent) else 0.0
        return max(self.new_reservations.get(agent.number, reserved), agent.money.spent_usd)

    def _has_little(self, agent: Agent) -> bool:
        """Return whether at most a tenth of the agent's budget is left in its reservation.

        For an agent without a budget of its own, a tenth of a step counts.
        """
        whole = self._step_usd if agent.money.budget_usd is None else agent.money.budget_usd
        return self._total_usd(agent) - agent.money.spent_usd <= whole * _LITTLE + ROUNDING_USD

    def _take(self, agent: Agent, amount: float) -> None:
        """Subtract the amount from all budgets that the agent's money comes from."""
        for key in _source_budgets(agent, self._held_grants):
            if key in self._free:
                self._free[key] -= amount


def has_used_up_budget(agent: Agent) -> bool:
    """Return whether the agent has spent its own budget. An agent without one has not."""
    return agent.money.budget_usd is not None and agent.money.spent_usd >= agent.money.budget_usd - ROUNDING_USD


def unspent_usd(agent: Agent) -> float:
    """Return the USD that are reserved for the agent and not spent.

    Return 0 if the agent has no program that could spend money, because then its reservation has no effect.
    """
    return max(0.0, agent.money.reserved_usd - agent.money.spent_usd) if _may_spend(agent) else 0.0


def sum_reserved(budget: Budget, live: Sequence[Agent], budgets: Iterable[Budget]) -> float:
    """Return the unspent USD that this budget reserves for agents and their grants."""
    left = {_key_of(each): each.limit_usd - each.spent_usd for each in budgets if each.limit_usd is not None}
    grants = _find_held_grants(live, left)
    below = [agent for agent in live if _key_of(budget) in _source_budgets(agent, grants)]
    return sum(unspent_usd(agent) + grants.get(_grant_key(agent), 0.0) for agent in below)


def sum_granted(parent: Agent, live: Sequence[Agent], budgets: Sequence[Budget]) -> float:
    """Return the USD of the parent's grant that its agents may still spend.

    This is the rest of these agents' budgets and of their own grants. Agents that they spawned themselves spend from
    those grants, and are not counted again.

    Args:
        live: The live agents below the parent.
    """
    left = {each.lead: each.limit_usd - each.spent_usd for each in budgets if each.limit_usd is not None}
    grants = {agent.as_lead: left.get(agent.as_lead, 0) for agent in live if _has_grant(agent)}
    counted = [agent for agent in live if grants.keys().isdisjoint(agent.leads[: agent.leads.index(parent.as_lead)])]
    return sum(
        max(0, (agent.money.budget_usd or 0) - agent.money.spent_usd) + max(0, grants.get(agent.as_lead, 0))
        for agent in counted
    )


def _find_held_grants(live: Sequence[Agent], left: Mapping[_BudgetKey, float]) -> dict[_BudgetKey, float]:
    """Return the USD reserved for nested agents, by the key of the parent's grant.

    The amount is the rest of the grant, or the rest of a budget above it if that is less. The grant of a queued parent
    is not reserved.

    Args:
        left: The rest of each limited budget.
    """
    parents = [
        agent for agent in live if agent.state is not State.QUEUED and _has_grant(agent) and _grant_key(agent) in left
    ]
    above = {_grant_key(agent): [_grant_key(agent), *_keys_above(agent.project, agent.leads)] for agent in parents}
    return {grant: max(0.0, min(left[key] for key in keys if key in left)) for grant, keys in above.items()}


def _source_budgets(agent: Agent, held_grants: Collection[_BudgetKey]) -> Sequence[_BudgetKey]:
    """Return the keys of the shared budgets that the agent's money comes from.

    They are its lead's budget and the budgets above it, up to and including the first reserved grant. The whole grant
    has already been taken from the budgets above that grant.
    """
    keys = _keys_above(agent.project, agent.leads)
    ends = [place for place, key in enumerate(keys, 1) if key in held_grants] if held_grants else []
    return keys[: ends[0]] if ends else keys


@lru_cache(maxsize=1000)
def _keys_above(project: int, leads: tuple[str, ...]) -> Sequence[_BudgetKey]:
    return tuple(dict.fromkeys((project, lead) for lead in (*leads, "")))


def _key_of(budget: Budget) -> _BudgetKey:
    return budget.project, budget.lead


def _grant_key(agent: Agent) -> _BudgetKey:
    """Return the key of the budget that the agents spawned by this agent share."""
    return agent.project, agent.as_lead


def _has_grant(agent: Agent) -> bool:
    return bool(agent.spec.nesting and agent.spec.nesting.budget_usd)


def _may_spend(agent: Agent) -> bool:
    """Return whether the agent has a program that can call a model, or starts it now."""
    return agent.phase in (*CALLING, PauseKind.FROZEN, PauseKind.ENDING)


def format_usd(amount: float) -> str:
    return f"{amount:.2f} USD" if amount >= 1 else f"{amount:.3g} USD"
