"""Gates: each looks for one reason why an agent that rests can't start, or go on, now. Pure.

A gate is made for one decision of what is at work, and told of each agent that the decision starts. The words of its
answer are what the lead reads of an agent that waits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Protocol

from forkjoin.decision.governor import CALLING, Account
from forkjoin.model import ACTIVE, Agent, State


class Gate(Protocol):
    def why_wait(self, agent: Agent) -> str | None:
        """Why this agent can't start, or go on, now; none where this gate lets it through."""
        ...

    def started(self, agent: Agent) -> None:
        """Count with this agent from now on."""
        ...


class Environment:
    """An agent starts in the environment of its lead, which is on no disk."""

    def __init__(self, without: Set[int]) -> None:
        self._without = without

    def why_wait(self, agent: Agent) -> str | None:
        if agent.number in self._without:
            return "its lead's environment is gone since a restart; it comes back with its session"
        return None

    def started(self, agent: Agent) -> None: ...


class Dependencies:
    """An agent starts once those that it comes `after` have ended, and is skipped where one has not succeeded.

    One that has no record any more counts as succeeded: only what is merged is ever let go of.
    """

    def __init__(self, live: Sequence[Agent], ended: Mapping[int, State]) -> None:
        self._live = {agent.number: agent for agent in live}
        self._ended = ended

    def why_wait(self, agent: Agent) -> str | None:
        if _has_begun(agent):
            return None
        pending = [self._live[number].label for number in agent.after if number in self._live]
        return f"it comes after {_some(pending)}" if pending else None

    def why_skip(self, agent: Agent) -> str | None:
        """Why it can never start; none where it may yet, or shall run all the same."""
        if agent.spec.on_failed_dependency == "run" or _has_begun(agent):
            return None
        failed = [n for n in agent.after if self._ended.get(n, State.SUCCEEDED) is not State.SUCCEEDED]
        return f"skipped: {_some([f'a{n} {self._ended[n]}' for n in failed])}" if failed else None

    def started(self, agent: Agent) -> None: ...


class Exclusive:
    """Of a project's agents with the same `exclusive` key one is at work at a time."""

    def __init__(self, live: Sequence[Agent]) -> None:
        self._holders: dict[tuple[int, str], Agent] = {}
        for agent in live:
            if agent.state is not State.QUEUED:  # one that is paused is in the midst of it
                self.started(agent)

    def why_wait(self, agent: Agent) -> str | None:
        key = agent.spec.exclusive
        holder = self._holders.get((agent.project, key)) if key else None
        return f"{holder.label} has {key!r} to itself" if holder and holder.number != agent.number else None

    def started(self, agent: Agent) -> None:
        if agent.spec.exclusive:
            self._holders[agent.project, agent.spec.exclusive] = agent


class Rest:
    """What has met with passing trouble goes on after a rest."""

    def __init__(self, now: float) -> None:
        self._now = now

    def why_wait(self, agent: Agent) -> str | None:
        return f"it rests until {clock(agent.not_before)}" if self._now < agent.not_before else None

    def started(self, agent: Agent) -> None: ...


class Governor:
    """Of an account no more are at work than its vendor takes."""

    def __init__(self, live: Sequence[Agent], accounts: Mapping[str, Account], now: float) -> None:
        self._accounts = accounts
        self._now = now
        self._at_work = Counter(agent.account for agent in live if agent.state in CALLING)

    def why_wait(self, agent: Agent) -> str | None:
        account = self._accounts.get(agent.account)
        if account is None:
            return None
        if self._now < account.closed_until:
            return f"{agent.account} takes no more until {clock(account.closed_until)}: {account.why}"
        if self._at_work[agent.account] >= account.most:
            return f"{agent.account} takes {account.most} at once for now: {account.why}"
        return None

    def started(self, agent: Agent) -> None:
        self._at_work[agent.account] += 1


class Slots:
    """No more than `max_running` are at work."""

    def __init__(self, live: Sequence[Agent], most: int) -> None:
        self._most = most
        self._free = most - sum(agent.state in ACTIVE for agent in live)

    def why_wait(self, agent: Agent) -> str | None:  # noqa: ARG002
        if self._free > 0:
            return None
        return "the only slot is taken" if self._most == 1 else f"all {self._most} slots are taken"

    def started(self, agent: Agent) -> None:  # noqa: ARG002
        self._free -= 1


def _has_begun(agent: Agent) -> bool:
    """Whether it has had a turn before."""
    return agent.attempt > 1 or agent.state is not State.QUEUED


def clock(at: float) -> str:
    """A time, as a person's clock shows it."""
    return datetime.fromtimestamp(at).astimezone().strftime("%a %H:%M:%S %Z")


#: How many agents a reason names.
_NAMED = 3


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return f"{', '.join(labels[:_NAMED])}{more}"
