"""Who may spend how much. Pure.

An agent has a budget of its own, or none; its lead, where that is an agent the leads above, and its repository may have
one, for all of theirs together. Money is given to an agent before it starts, out of every budget that it is under, and
settled as it spends: what it has not spent when it runs no more is free again. What an agent may give to those that it
spawns is held for them from its start to its end, and their money comes out of that. Under a budget, one that has none
of its own is given money step by step. Near the end of what it has an agent is asked to wind up; at the end it pauses,
and goes on once there is more. A program that converses with no model spends nothing.
"""

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

from forkjoin.core.model import CALLING, RUNS, Agent, Budget, Pause, State
from forkjoin.scheduling.gates import Gate, Hold

#: Less than this part of a budget, or of a step, is little: who has no more winds up, and nobody goes on for less.
_LITTLE = 0.1
#: Less than this is rounding.
ROUNDING_USD = 1e-9

#: Of a budget: a project, and a lead in it, or ''.
_Key = tuple[int, str]


class BudgetGate(Gate):
    """Nothing is spent that was not given."""

    def __init__(self, live: Sequence[Agent], budgets: Iterable[Budget], step_usd: float) -> None:
        self.given: dict[int, float] = {}  #: what agents are given by this decision, in all, by number
        self._live = live
        self._step_usd = step_usd
        limited = {(one.project, one.lead): one for one in budgets}
        self._limits = {key: one.limit_usd for key, one in limited.items() if one.limit_usd is not None}
        self._unspent = {key: limit - limited[key].spent_usd for key, limit in self._limits.items()}
        self._held = _held(live, self._unspent)
        self._free = dict(self._unspent)
        for agent in live:
            self._take(agent, unspent(agent) + self._held.get(_own(agent), 0.0))
        for agent in live:
            if _may_spend(agent):
                self.started(agent)

    def hold(self, agent: Agent) -> Hold | None:
        offer = self._offer(agent)
        return offer if isinstance(offer, Hold) else None

    def started(self, agent: Agent) -> None:
        """Give the agent what it lacks, where that is there; where nothing limits it any more, nothing is its limit."""
        if theirs := self._to_hold(agent):
            self._take(agent, theirs)
            self._held[_own(agent)] = theirs
        if not self._is_bound(agent):
            if agent.money.reserved_usd:
                self.given[agent.number] = 0.0
            return
        offer = self._offer(agent)
        if not isinstance(offer, Hold) and abs(offer) > ROUNDING_USD:
            self._take(agent, offer)
            self.given[agent.number] = self._has(agent) + offer

    def find_pauses(self) -> Mapping[int, Pause]:
        holds = {one.number: self._hold_running(one) for one in self._live if one.state in RUNS or one.pause.frozen}
        return {number: Pause(hold.why, ending=True) for number, hold in holds.items() if hold}

    def find_agents_to_wind_up(self) -> tuple[int, ...]:
        """Who of those that run is near the end of what it has, and was not told."""
        running = [one for one in self._live if one.state in RUNS and not one.money.wind_up and self._is_bound(one)]
        return tuple(agent.number for agent in running if self._has_little(agent))

    def wanted(self, agent: Agent) -> tuple[float, float]:
        """What the agent is to be given, beside what it has, and the least of it that will do."""
        if self._is_bound(agent) and agent.money.budget_usd is not None:
            most = max(agent.money.budget_usd, agent.money.spent_usd) - self._has(agent)
            return most, min(most, self._step_usd * _LITTLE) if agent.has_begun else most
        if self._is_bound(agent) and self._has_little(agent):
            return self._step_usd, self._step_usd * _LITTLE
        return 0.0, 0.0

    def _hold_running(self, agent: Agent) -> Hold | None:
        if not self._is_bound(agent):
            return None
        is_over = any(self._unspent[key] <= ROUNDING_USD for key in self._over(agent))
        return self.hold(agent) if is_over or agent.money.spent_usd >= self._has(agent) - ROUNDING_USD else None

    def _offer(self, agent: Agent) -> float | Hold:
        """What the agent is given now, beside what it has; negative where that is more than it may have by now."""
        theirs = self._to_hold(agent)
        if not self._is_bound(agent) and not theirs:
            return 0.0
        if agent.money.budget_usd is not None and has_used_up_budget(agent):
            return Hold(f"its budget of {format_usd(agent.money.budget_usd)} is used up; set_budget raises it")
        wanted, least = self.wanted(agent)
        purses = _purses(agent, self._held)
        free = {key: self._free[key] if key in purses else self._unspent[key] for key in self._over(agent)}
        for key, left in free.items():
            if self._unspent[key] <= ROUNDING_USD or max(0.0, left) < least + theirs - ROUNDING_USD:
                return self._explain(agent, key, left, least + theirs)
        return min([wanted, *(max(left - theirs, least) for left in free.values())])

    def _to_hold(self, agent: Agent) -> float:
        """What is to be held from now on, if the agent starts, for those that it spawns."""
        return max(0.0, self._free.get(_own(agent), 0.0)) if _grants(agent) and _own(agent) not in self._held else 0.0

    def _explain(self, agent: Agent, key: _Key, left: float, least: float) -> Hold:
        whose = "its lead's" if key[1] else "the repository's"
        what = f"has {format_usd(max(0.0, left))} left, and it needs {format_usd(least)}" if least > 0 else "is used up"
        held = self._held.get(_own(agent))
        beside = f" beside the {format_usd(held)} that are held for its own agents" if held and least > 0 else ""
        how = f"forkjoin budget --lead {shlex.quote(key[1])}" if key[1] else "forkjoin budget"
        return Hold(f"{whose} budget of {format_usd(self._limits[key])} {what}{beside}; a person raises it with: {how}")

    def _is_bound(self, agent: Agent) -> bool:
        """Whether a budget says how much it may spend."""
        return agent.converses and (agent.money.budget_usd is not None or bool(self._over(agent)))

    def _over(self, agent: Agent) -> list[_Key]:
        """The limited budgets that it is under, besides its own."""
        return [key for key in _keys(agent.project, agent.leads) if key in self._limits]

    def _has(self, agent: Agent) -> float:
        """What the agent may spend in all, or has spent without being asked."""
        given = agent.money.reserved_usd if _may_spend(agent) else 0.0
        return max(self.given.get(agent.number, given), agent.money.spent_usd)

    def _has_little(self, agent: Agent) -> bool:
        """Whether little is left of its budget; without one, of a step."""
        whole = self._step_usd if agent.money.budget_usd is None else agent.money.budget_usd
        return self._has(agent) - agent.money.spent_usd <= whole * _LITTLE + ROUNDING_USD

    def _take(self, agent: Agent, amount: float) -> None:
        for key in _purses(agent, self._held):
            if key in self._free:
                self._free[key] -= amount


def has_used_up_budget(agent: Agent) -> bool:
    """Whether the agent has spent all of its own budget: only its lead can let it go on."""
    return agent.money.budget_usd is not None and agent.money.spent_usd >= agent.money.budget_usd - ROUNDING_USD


def unspent(agent: Agent) -> float:
    """What the agent was given and has not spent; nothing where it can't spend it now."""
    return max(0.0, agent.money.reserved_usd - agent.money.spent_usd) if _may_spend(agent) else 0.0


def sum_reserved(budget: Budget, live: Sequence[Agent], budgets: Iterable[Budget]) -> float:
    """What the agents under this budget were given, or is held for those that they spawn, and is not spent."""
    left = {(one.project, one.lead): one.limit_usd - one.spent_usd for one in budgets if one.limit_usd is not None}
    held, key = _held(live, left), (budget.project, budget.lead)
    return sum(unspent(one) + held.get(_own(one), 0.0) for one in live if key in _purses(one, held))


def sum_granted(parent: Agent, live: Sequence[Agent], budgets: Sequence[Budget]) -> float:
    """What of an agent's grant is given out and not spent: its own agents' budgets, and what these grant in turn, in
    which those below them are."""
    left = {one.lead: one.limit_usd - one.spent_usd for one in budgets if one.limit_usd is not None}
    granting = {
        one.as_lead: left.get(one.as_lead, 0) for one in live if one.spec.nesting and one.spec.nesting.budget_usd
    }
    own = [one for one in live if granting.keys().isdisjoint(one.leads[: one.leads.index(parent.as_lead)])]
    return sum(
        max(0, (one.money.budget_usd or 0) - one.money.spent_usd) + max(0, granting.get(one.as_lead, 0)) for one in own
    )


def _held(live: Sequence[Agent], left: Mapping[_Key, float]) -> dict[_Key, float]:
    """What is held for those that agents spawn which have begun, and not ended: no more than is left above them."""
    granting = [one for one in live if one.state is not State.QUEUED and _grants(one) and _own(one) in left]
    over = {_own(one): [_own(one), *_keys(one.project, one.leads)] for one in granting}
    return {own: max(0.0, min(left[key] for key in keys if key in left)) for own, keys in over.items()}


def _purses(agent: Agent, held: Collection[_Key]) -> Sequence[_Key]:
    """The budgets that its money comes out of: its lead's and those above, up to the first that is held for it."""
    keys = _keys(agent.project, agent.leads)
    ends = [place for place, key in enumerate(keys, 1) if key in held] if held else []
    return keys[: ends[0]] if ends else keys


@lru_cache(maxsize=1000)
def _keys(project: int, leads: tuple[str, ...]) -> Sequence[_Key]:
    return tuple(dict.fromkeys((project, lead) for lead in (*leads, "")))


def _own(agent: Agent) -> _Key:
    """The budget of those that it spawns."""
    return agent.project, agent.as_lead


def _grants(agent: Agent) -> bool:
    return bool(agent.spec.nesting and agent.spec.nesting.budget_usd)


def _may_spend(agent: Agent) -> bool:
    """Whether a program of it is there, or about to be, that calls a model."""
    return agent.state in CALLING or agent.pause.frozen or agent.pause.ending


def format_usd(amount: float) -> str:
    """An amount of money, as a sentence tells it."""
    return f"{amount:.2f} USD" if amount >= 1 else f"{amount:.3g} USD"
