"""Who may spend how much. Pure.

An agent has a budget of its own, or none; its lead and its repository may have one, for all of theirs together. Money
is given to an agent before it starts, out of every budget that it is under, and settled as it spends: what it has not
spent at its end is free again. Under a budget, one that has none of its own is given money step by step. Near the end
of what it was given an agent is asked to wind up; at the end it pauses, and goes on once there is more.
"""

from collections.abc import Iterable, Mapping, Sequence

from forkjoin.decision.gate import Gate, Hold
from forkjoin.model import Agent, Budget, Pause, State

#: The part of what it was given after which an agent is asked to wind up.
_NEAR_END = 0.9
#: The part of a step without which it is not worth while to begin.
_LEAST = 0.1
#: USD: less than this is rounding.
_NOTHING = 1e-9


class Budgets(Gate):
    """Nothing is spent that was not reserved.

    Attributes:
        given: What agents are given by this decision, in all, by number.
    """

    def __init__(self, live: Sequence[Agent], budgets: Iterable[Budget], step_usd: float) -> None:
        self.given: dict[int, float] = {}
        self._live = live
        self._step_usd = step_usd
        limited = {(one.project, one.lead): one for one in budgets}
        self._limits = {key: one.limit_usd for key, one in limited.items() if one.limit_usd is not None}
        self._unspent = {key: limit - limited[key].spent_usd for key, limit in self._limits.items()}
        self._free = dict(self._unspent)
        for agent in live:
            self._take(agent, max(0.0, agent.reserved_usd - agent.spent_usd))
        for agent in live:
            if agent.under_way:
                self.started(agent)

    def hold(self, agent: Agent) -> Hold | None:
        offer = self._offer(agent)
        return offer if isinstance(offer, Hold) else self._used_up(agent)

    def started(self, agent: Agent) -> None:
        """Give the agent what it lacks, where that is there."""
        offer = self._offer(agent)
        if not isinstance(offer, Hold) and abs(offer) > _NOTHING:
            self._take(agent, offer)
            self.given[agent.number] = self._had(agent) + offer

    def to_pause(self) -> Mapping[int, Pause]:
        holds = {agent.number: self._hold_running(agent) for agent in self._live if agent.state is State.RUNNING}
        return {number: Pause(hold.why, ending=True) for number, hold in holds.items() if hold}

    def to_wind_up(self) -> tuple[int, ...]:
        """Who of those that run is near the end of what it has, and was not told."""
        running = [one for one in self._live if one.state is State.RUNNING and not one.wind_up and self._is_bound(one)]
        return tuple(agent.number for agent in running if _is_near_end(agent, self._had(agent)))

    def wanted(self, agent: Agent) -> tuple[float, float]:
        """What the agent is to be given, beside what it had, and the least of it that will do."""
        if agent.budget_usd is not None:
            most = max(agent.budget_usd, agent.spent_usd) - self._had(agent)
            return most, most
        if self._is_bound(agent) and _is_near_end(agent, self._had(agent)):
            return self._step_usd, self._step_usd * _LEAST
        return 0.0, 0.0

    def _hold_running(self, agent: Agent) -> Hold | None:
        if not self._is_bound(agent):
            return None
        is_over = any(self._unspent[key] <= _NOTHING for key in self._over(agent))
        return self.hold(agent) if is_over or agent.spent_usd >= self._had(agent) - _NOTHING else None

    def _used_up(self, agent: Agent) -> Hold | None:
        if agent.budget_usd is None or agent.spent_usd < agent.budget_usd - _NOTHING:
            return None
        return Hold(f"its budget of {usd(agent.budget_usd)} is used up; set_budget raises it")

    def _offer(self, agent: Agent) -> float | Hold:
        """What the agent is given now, beside what it had; negative where that is more than it may have by now."""
        wanted, least = self.wanted(agent)
        budgets = self._over(agent) if self._is_bound(agent) else []
        for key in budgets:
            if self._unspent[key] <= _NOTHING or max(0.0, self._free[key]) < least - _NOTHING:
                return self._explain(key, least)
        return min([wanted, *(max(self._free[key], least) for key in budgets)])

    def _explain(self, key: tuple[int, str], least: float) -> Hold:
        whose = "its lead's" if key[1] else "the repository's"
        left = f"has {usd(max(0.0, self._free[key]))} left, and it needs {usd(least)}" if least > 0 else "is used up"
        return Hold(f"{whose} budget of {usd(self._limits[key])} {left}; a person raises it with: forkjoin budget")

    def _is_bound(self, agent: Agent) -> bool:
        """Whether a budget says how much it may spend."""
        return agent.budget_usd is not None or bool(agent.account and self._over(agent))

    def _over(self, agent: Agent) -> list[tuple[int, str]]:
        """The limited budgets that it is under, besides its own."""
        return [key for key in ((agent.project, agent.lead), (agent.project, "")) if key in self._limits]

    def _had(self, agent: Agent) -> float:
        """What it was given, or has spent without."""
        return max(self.given.get(agent.number, agent.reserved_usd), agent.spent_usd)

    def _take(self, agent: Agent, amount: float) -> None:
        for key in self._over(agent):
            self._free[key] -= amount


def _is_near_end(agent: Agent, has: float) -> bool:
    return agent.spent_usd >= _NEAR_END * has - _NOTHING


def reserved(budget: Budget, live: Sequence[Agent]) -> float:
    """What agents under this budget were given, and have not spent."""
    under = (agent for agent in live if agent.project == budget.project and budget.lead in ("", agent.lead))
    return sum(max(0.0, agent.reserved_usd - agent.spent_usd) for agent in under)


def usd(amount: float) -> str:
    """An amount of money, as a sentence tells it."""
    return f"{amount:.2f} USD" if amount >= 1 else f"{amount:.3g} USD"
