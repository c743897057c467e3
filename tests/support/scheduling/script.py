"""The input of the simulator: programs of agents, refusals of vendors, and restarts of the daemon."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal, NamedTuple

from forkjoin.adapters.contract import Conclusion
from forkjoin.core.agent_spec import Spec
from forkjoin.core.event import RateLimited

_PLAIN = Spec(task="a task")


class Turn(NamedTuple):
    """Work of a program, followed by a model call with this price."""

    work_s: float
    price_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """The task of an agent and the behaviour of its program. Times are seconds since the beginning."""

    spec: Spec = _PLAIN
    spawned: float = 0
    lead: str = "lead"
    account: str = ""
    after: tuple[int, ...] = ()  #: numbers of older agents
    turns: tuple[Turn, ...] = (Turn(1),)
    end: Literal["ok", "failed", "timed_out", "lost"] = "ok"
    failures: int = 0  #: attempts that end with a temporary error
    own_retries: int = 0  #: times that the program itself repeats a refused call before it ends
    stop_s: float | None = None  #: seconds from the spawn until a person stops the agent
    program_gb: float = 0  #: memory of the program
    hides_cost: bool = False  #: the program does not report the cost of its calls
    message_s: float | None = None  #: seconds from the spawn until a message, which queues an ended agent again

    def __repr__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return f"Script({values | {'spec': self.spec.model_dump(exclude_defaults=True)}})"


class RefusalHint(StrEnum):
    """The information in a refusal: none, a time to wait, or the time of a reset."""

    NONE = "none"
    WAIT = "wait"
    RESET = "reset"


class Period(NamedTuple):
    """A period in seconds since the beginning, and the information in its refusals."""

    since: float
    lasts_s: float
    hint: RefusalHint = RefusalHint.NONE


class Shortage(NamedTuple):
    """A period in which a vendor refuses calls while more than `accepted` agents of an account run."""

    account: str
    period: Period
    accepted: int

    def refusal(self, begin: float) -> RateLimited:
        """Return the vendor's refusal, in a history that begins at this time."""
        match self.period.hint:
            case RefusalHint.NONE:
                return RateLimited("429")
            case RefusalHint.WAIT:
                return RateLimited("429", wait_s=4)
            case RefusalHint.RESET:
                return RateLimited("usage limit", until=begin + self.period.since + self.period.lasts_s)


class Restart(NamedTuple):
    """A restart of the daemon, which knows only the records, and the later reconnection of the leads."""

    at: float
    reconnect_s: float


class SharedBudget(NamedTuple):
    """The repository's budget, and the time at which a person raises all budgets."""

    limit_usd: float
    raised_s: float


@dataclass(frozen=True, slots=True)
class History:
    """Everything that happens, except the decisions of the scheduler."""

    scripts: Sequence[Script]  #: in the order of their spawns: the first agent is number 1
    max_running: int
    shortages: Sequence[Shortage] = ()
    restarts: Sequence[Restart] = ()
    step_s: float = 1  #: duration of preparing an agent, and of finishing it
    seed: int = 0  #: seed of the jitter
    budget: SharedBudget | None = None
    memory_gb: float | None = None  #: memory for agents; `None`: no limit

    def numbered(self) -> Iterable[tuple[int, Script]]:
        return enumerate(self.scripts, 1)


@dataclass(slots=True)
class Program:
    """The progress of an agent's program, across its attempts."""

    script: Script
    done: int = 0  #: finished turns
    refusals: int = 0  #: refusals of the next call in this attempt
    left_s: float = 0  #: remaining work until the next call
    left_usd: float = math.inf  #: remaining budget of this attempt, as known to the program
    concluded: Conclusion = field(default_factory=lambda: Conclusion(ok=False, output=""))
