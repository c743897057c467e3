"""The gates: each checks one condition for an agent to start, or to go on after a pause. Pure.

A gate is made for a single decision. It knows which agents are at work, and counts each agent that the decision starts.
For an agent that waits, `list_agents` shows the reason of the gate that holds the agent.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import NamedTuple

from forkjoin.core.model import ACTIVE, CALLING, RUNS, Agent, Pause, PauseKind, PauseReason, State
from forkjoin.scheduling.rate_limit_policy import MAX_DELAY_S, RateLimit

#: Agents are not frozen if the vendor takes no calls for longer than this.
_MAX_FREEZE_S = 2 * MAX_DELAY_S
#: Maximum number of agents that a reason names.
_MAX_NAMED = 3


class Hold(NamedTuple):
    """The reason why an agent waits."""

    reason: str
    until: float = math.inf  #: when the agent may pass although no event has happened, in seconds since the epoch


class Gate:
    """One condition for an agent to start."""

    def check(self, agent: Agent) -> Hold | None:
        """Return why the agent can't start now, or `None` if it can."""
        raise NotImplementedError

    def on_start(self, agent: Agent) -> None:
        """Count the agent as started in this decision."""

    def on_hold(self, agent: Agent) -> None:
        """Note that this gate holds the agent back in this decision."""

    def find_pauses(self) -> Mapping[int, Pause]:
        """Return the pauses of the agents that should pause now, by agent number.

        A pause has a reason and a kind.
        """
        return {}

    def next_pause_at(self) -> float:
        """Return when agents may have to pause without an event, as epoch seconds."""
        return math.inf


class EnvironmentGate(Gate):
    """The gate that holds an agent while the daemon lacks its lead's environment, which a restart can lose."""

    def __init__(self, without_environment: Set[int]) -> None:
        self._without_environment = without_environment

    def check(self, agent: Agent) -> Hold | None:
        if agent.number in self._without_environment:
            return Hold("its lead's environment is gone since a restart; it comes back with its session")
        return None


class DependencyGate(Gate):
    """The gate that holds an agent until the agents in its `after` have ended.

    An agent without a record counts as succeeded, because only records of merged agents are deleted. Of several
    candidates, one success is enough.
    """

    def __init__(self, live: Sequence[Agent], ended: Mapping[int, State]) -> None:
        self._live = {agent.number: agent for agent in live}
        self._ended = ended

    def check(self, agent: Agent) -> Hold | None:
        if agent.has_begun:
            return None
        pending = [self._live[number].label for number in agent.dependencies.after if number in self._live]
        return Hold(f"it comes after {_join(pending)}") if pending else None

    def find_skip_reason(self, agent: Agent) -> str | None:
        """Return why the agent can never start, or `None` if it still can."""
        if agent.spec.on_failed_dependency == "run" or agent.has_begun:
            return None
        after, best_of = agent.dependencies.after, agent.dependencies.best_of
        failed = [n for n in after if self._ended.get(n, State.SUCCEEDED) is not State.SUCCEEDED]
        all_failed = {n for candidates in best_of if set(candidates).issubset(failed) for n in candidates}
        failed = [n for n in failed if n in all_failed or not best_of]
        return f"skipped: {_join([f'a{n} {self._ended[n]}' for n in failed])}" if failed else None


class ExclusiveKeyGate(Gate):
    """The gate that runs the agents of a project that share an `exclusive` key one at a time."""

    def __init__(self, live: Sequence[Agent]) -> None:
        self._holders: dict[tuple[int, str], Agent] = {}
        # Queued agents come first, so that an agent that runs or is paused replaces them as the holder of the key.
        for agent in sorted(live, key=lambda agent: agent.state is not State.QUEUED):
            if agent.has_begun:  # a paused agent, or one that waits for its next attempt, keeps its key
                self.on_start(agent)

    def check(self, agent: Agent) -> Hold | None:
        key = agent.spec.exclusive
        holder = self._holders.get((agent.project, key)) if key else None
        return Hold(f"{holder.label} has {key!r} to itself") if holder and holder.number != agent.number else None

    def on_start(self, agent: Agent) -> None:
        if agent.spec.exclusive:
            self._holders[agent.project, agent.spec.exclusive] = agent


class RetryDelayGate(Gate):
    """The gate that holds an agent during the delay before a retry, and until its ending attempt has ended."""

    def __init__(self, now: float) -> None:
        self._now = now

    def check(self, agent: Agent) -> Hold | None:
        if agent.phase is PauseKind.ENDING:
            return Hold(agent.pause.why)
        if self._now >= agent.pause.not_before:
            return None
        return Hold(f"it rests until {format_time(agent.pause.not_before)}: {agent.pause.why}", agent.pause.not_before)


class PersonGate(Gate):
    """The gate that holds an agent while a person is attached to its conversation."""

    def __init__(self, attached: Set[int]) -> None:
        self._attached = attached

    def check(self, agent: Agent) -> Hold | None:
        return Hold(PauseReason.PERSON_ATTACHED.sentence) if agent.number in self._attached else None


class RateLimitGate(Gate):
    """The gate that runs no more agents of an account than its rate limit allows. If more run, the youngest are frozen.

    If the vendor takes no calls for long, no agent is frozen, because a frozen agent keeps its memory. Instead the
    agent's next call is refused, its program ends, and the agent is resumed later.
    """

    def __init__(self, live: Sequence[Agent], rate_limits: Mapping[str, RateLimit], now: float) -> None:
        self._live = live
        self._rate_limits = rate_limits
        self._now = now
        self._calling = Counter(agent.account for agent in live if agent.state in CALLING)

    def check(self, agent: Agent) -> Hold | None:
        limit = self._rate_limits.get(agent.account)
        if limit is None or (agent.phase is PauseKind.FROZEN and self._is_closed_for_long(limit)):
            return None
        if self._now < limit.closed_until:
            reason = f"{agent.account} takes no more until {format_time(limit.closed_until)}: {limit.reason}"
            return Hold(reason, limit.closed_until)
        if self._calling[agent.account] >= limit.max_running:
            reason = f"{agent.account} takes {limit.max_running} at once for now: {limit.reason}"
            return Hold(reason, limit.recovers_at)
        return None

    def on_start(self, agent: Agent) -> None:
        self._calling[agent.account] += 1

    def find_pauses(self) -> Mapping[int, Pause]:
        pauses: dict[int, Pause] = {}
        for account, limit in self._rate_limits.items():
            if not self._is_closed_for_long(limit):
                calling = [agent for agent in self._live if agent.account == account and agent.state in CALLING]
                excess = [agent.number for agent in calling[limit.max_running :] if agent.state in RUNS]
                pauses |= dict.fromkeys(excess, Pause(PauseReason.RATE_LIMIT, limit.reason, PauseKind.FROZEN))
        return pauses

    def next_pause_at(self) -> float:
        exceeded = [limit for name, limit in self._rate_limits.items() if self._calling[name] > limit.max_running]
        return min(
            (limit.closed_until - _MAX_FREEZE_S for limit in exceeded if self._is_closed_for_long(limit)),
            default=math.inf,
        )

    def _is_closed_for_long(self, limit: RateLimit) -> bool:
        return limit.closed_until - _MAX_FREEZE_S > self._now


class SlotGate(Gate):
    """The gate that lets at most `max_running` agents work at once."""

    def __init__(self, live: Sequence[Agent], max_running: int) -> None:
        self._max_running = max_running
        self._free = max_running - sum(agent.state in ACTIVE for agent in live)

    def check(self, agent: Agent) -> Hold | None:  # noqa: ARG002
        if self._free > 0:
            return None
        return Hold("the only slot is taken" if self._max_running == 1 else f"all {self._max_running} slots are taken")

    def on_start(self, agent: Agent) -> None:  # noqa: ARG002
        self._free -= 1


def format_time(at: float) -> str:
    """Return a local time such as `Mon 09:30:00 CET`.

    Args:
        at: Seconds since the epoch.
    """
    return datetime.fromtimestamp(at).astimezone().strftime("%a %H:%M:%S %Z")


def _join(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MAX_NAMED} more" if len(labels) > _MAX_NAMED else ""
    return f"{', '.join(labels[:_MAX_NAMED])}{more}"
