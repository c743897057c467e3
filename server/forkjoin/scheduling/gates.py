"""Gates: each looks for one reason why an agent that waits for its turn can't start, or go on, now. Pure.

A gate is made for one decision of what is at work, and told of each agent that the decision starts. The words of its
answer are what the lead reads of an agent that waits.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import NamedTuple

from forkjoin.core.model import ACTIVE, CALLING, RUNS, Agent, Pause, State
from forkjoin.scheduling.rate_limit_policy import MAX_DELAY_S, RateLimit

#: For longer than that nobody is frozen.
_LONG_S = 2 * MAX_DELAY_S


class Hold(NamedTuple):
    """Why an agent waits, and when, in seconds since the epoch, that may end without anything having happened."""

    why: str
    until: float = math.inf


class Gate:
    def hold(self, agent: Agent) -> Hold | None:
        """What holds this agent; none where this gate lets it through."""
        raise NotImplementedError

    def started(self, agent: Agent) -> None:
        """Count with this agent from now on."""

    def held(self, agent: Agent) -> None:
        """Count with this agent as one that waits: this gate has held it."""

    def find_pauses(self) -> Mapping[int, Pause]:
        """Who of those that run is to pause, by number."""
        return {}

    def next_pause_at(self) -> float:
        """When others are to pause without anything having happened, in seconds since the epoch."""
        return math.inf


class EnvironmentGate(Gate):
    """An agent starts in the environment of its lead, which is on no disk."""

    def __init__(self, without: Set[int]) -> None:
        self._without = without

    def hold(self, agent: Agent) -> Hold | None:
        if agent.number in self._without:
            return Hold("its lead's environment is gone since a restart; it comes back with its session")
        return None


class DependencyGate(Gate):
    """An agent starts once those that it comes `after` have ended, and is skipped where one has not succeeded.

    One that has no record any more counts as succeeded: only what is merged is ever let go of. Of candidates for one
    task a single success is enough.
    """

    def __init__(self, live: Sequence[Agent], ended: Mapping[int, State]) -> None:
        self._live = {agent.number: agent for agent in live}
        self._ended = ended

    def hold(self, agent: Agent) -> Hold | None:
        if agent.has_begun:
            return None
        pending = [self._live[number].label for number in agent.dependencies.after if number in self._live]
        return Hold(f"it comes after {_some(pending)}") if pending else None

    def why_skip(self, agent: Agent) -> str | None:
        """Why it can never start; none where it may yet, or shall run all the same."""
        if agent.spec.on_failed_dependency == "run" or agent.has_begun:
            return None
        failed = [n for n in agent.dependencies.after if self._ended.get(n, State.SUCCEEDED) is not State.SUCCEEDED]
        stuck = {n for candidates in agent.dependencies.best_of if set(candidates).issubset(failed) for n in candidates}
        failed = [n for n in failed if n in stuck or not agent.dependencies.best_of]
        return f"skipped: {_some([f'a{n} {self._ended[n]}' for n in failed])}" if failed else None


class ExclusiveKeyGate(Gate):
    """Of a project's agents with the same `exclusive` key one is at work at a time."""

    def __init__(self, live: Sequence[Agent]) -> None:
        self._holders: dict[tuple[int, str], Agent] = {}
        for agent in sorted(live, key=lambda one: one.state is not State.QUEUED):  # whoever has begun again keeps it
            if agent.has_begun:  # one that pauses is in the midst of it
                self.started(agent)

    def hold(self, agent: Agent) -> Hold | None:
        key = agent.spec.exclusive
        holder = self._holders.get((agent.project, key)) if key else None
        return Hold(f"{holder.label} has {key!r} to itself") if holder and holder.number != agent.number else None

    def started(self, agent: Agent) -> None:
        if agent.spec.exclusive:
            self._holders[agent.project, agent.spec.exclusive] = agent


class RetryDelayGate(Gate):
    """What has met with passing trouble goes on after a rest; what is to end first, once it has ended."""

    def __init__(self, now: float) -> None:
        self._now = now

    def hold(self, agent: Agent) -> Hold | None:
        if agent.pause.ending:
            return Hold(agent.pause.why)
        if self._now >= agent.pause.not_before:
            return None
        return Hold(f"it rests until {format_time(agent.pause.not_before)}: {agent.pause.why}", agent.pause.not_before)


#: Why an agent pauses whose program rests for a person, and why once they have left.
PERSON_ATTACHED, PERSON_LEFT = "a person is in its conversation", "a person was in its conversation"


class PersonGate(Gate):
    """Holds agents to which a person is attached."""

    def __init__(self, attached: Set[int]) -> None:
        self._attached = attached

    def hold(self, agent: Agent) -> Hold | None:
        return Hold(PERSON_ATTACHED) if agent.number in self._attached else None


class RateLimitGate(Gate):
    """Of an account no more run than its vendor takes; where more do, the youngest pause.

    Where the vendor takes nothing for long, nobody is frozen, which would keep its memory: whoever calls is refused,
    ends, and is resumed.
    """

    def __init__(self, live: Sequence[Agent], rate_limits: Mapping[str, RateLimit], now: float) -> None:
        self._live = live
        self._rate_limits = rate_limits
        self._now = now
        self._calling = Counter(agent.account for agent in live if agent.state in CALLING)

    def hold(self, agent: Agent) -> Hold | None:
        known = self._rate_limits.get(agent.account)
        if known is None:
            return None
        if agent.pause.frozen and self._is_closed_for_long(known):
            return None
        if self._now < known.closed_until:
            why = f"{agent.account} takes no more until {format_time(known.closed_until)}: {known.why}"
            return Hold(why, known.closed_until)
        if self._calling[agent.account] >= known.most:
            return Hold(f"{agent.account} takes {known.most} at once for now: {known.why}", known.grows_at)
        return None

    def started(self, agent: Agent) -> None:
        self._calling[agent.account] += 1

    def find_pauses(self) -> Mapping[int, Pause]:
        found: dict[int, Pause] = {}
        for account, known in self._rate_limits.items():
            if not self._is_closed_for_long(known):
                calling = [one for one in self._live if one.account == account and one.state in CALLING]
                crowd = [one.number for one in calling[known.most :] if one.state in RUNS]
                found |= dict.fromkeys(crowd, Pause(known.why, frozen=True))
        return found

    def next_pause_at(self) -> float:
        crowded = [known for account, known in self._rate_limits.items() if self._calling[account] > known.most]
        soon = [known.closed_until - _LONG_S for known in crowded if self._is_closed_for_long(known)]
        return min(soon, default=math.inf)

    def _is_closed_for_long(self, known: RateLimit) -> bool:
        return known.closed_until - _LONG_S > self._now


class SlotGate(Gate):
    """No more than `max_running` are at work."""

    def __init__(self, live: Sequence[Agent], most: int) -> None:
        self._most = most
        self._free = most - sum(agent.state in ACTIVE for agent in live)

    def hold(self, agent: Agent) -> Hold | None:  # noqa: ARG002
        if self._free > 0:
            return None
        return Hold("the only slot is taken" if self._most == 1 else f"all {self._most} slots are taken")

    def started(self, agent: Agent) -> None:  # noqa: ARG002
        self._free -= 1


def format_time(at: float) -> str:
    """A time, as a person's clock shows it."""
    return datetime.fromtimestamp(at).astimezone().strftime("%a %H:%M:%S %Z")


#: How many agents a reason names.
_NAMED = 3


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{', '.join(labels[:_NAMED])}{more}"
