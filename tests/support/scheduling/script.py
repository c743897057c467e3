"""What the simulator plays: agents' programs, vendors that record_refusal, daemons that begin anew."""

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
    """A program works for so long, and then calls its model at this price."""

    work_s: float
    price_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Script:
    """What one agent is asked to do, and does; times are seconds since the beginning."""

    spec: Spec = _PLAIN
    spawned: float = 0
    lead: str = "lead"
    account: str = ""
    after: tuple[int, ...] = ()  #: numbers of those that were spawned before
    turns: tuple[Turn, ...] = (Turn(1),)
    end: Literal["ok", "failed", "timed_out", "lost"] = "ok"
    stumbles: int = 0  #: how many of its attempts end in passing trouble
    patience: int = 0  #: how often its program tries a refused call again by itself before it ends
    stopped_s: float | None = None  #: so long after its spawn somebody asks for its stop
    takes_gb: float = 0  #: of memory, while it has a program
    is_secretive: bool = False  #: it tells nothing of what its calls cost
    told_s: float | None = None  #: so long after it somebody sends a message: if it has ended, that begins an attempt

    def __repr__(self) -> str:
        told = {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}
        return f"Script({told | {'spec': self.spec.model_dump(exclude_defaults=True)}})"


class Tells(StrEnum):
    """What a vendor tells of a shortage: nothing, a time to wait, or when it is over."""

    NOTHING = "nothing"
    WAIT = "wait"
    RESET = "reset"


class When(NamedTuple):
    """A time, in seconds since the beginning, and what a vendor tells of it."""

    since: float
    lasts_s: float
    tells: Tells = Tells.NOTHING


class Shortage(NamedTuple):
    """A vendor refuses calls of an account while more than so many of its programs run."""

    account: str
    when: When
    takes: int

    def refusal(self, begin: float) -> RateLimited:
        """What it says, where all this begins then."""
        match self.when.tells:
            case Tells.NOTHING:
                return RateLimited("429")
            case Tells.WAIT:
                return RateLimited("429", wait_s=4)
            case Tells.RESET:
                return RateLimited("limit of use", until=begin + self.when.since + self.when.lasts_s)


class Restart(NamedTuple):
    """A daemon begins that knows of nothing but the records; the leads connect again some time later."""

    at: float
    back_s: float


class Purse(NamedTuple):
    """What all may spend together, until somebody gives all of them as much as they like."""

    limit_usd: float
    raised_s: float


@dataclass(frozen=True, slots=True)
class History:
    """All that is going to happen but for what is decided."""

    scripts: Sequence[Script]  #: in the order of their spawns: the first agent is number 1
    max_running: int
    shortages: Sequence[Shortage] = ()
    restarts: Sequence[Restart] = ()
    step_s: float = 1  #: how long it takes to prepare, and to finish, an agent
    seed: int = 0  #: of jitter
    purse: Purse | None = None
    memory_gb: float | None = None  #: that agents can have; none: as much as they like

    def numbered(self) -> Iterable[tuple[int, Script]]:
        return enumerate(self.scripts, 1)


@dataclass(slots=True)
class Program:
    """How far an agent's program is, in whatever attempt."""

    script: Script
    done: int = 0  #: of its turns
    tried: int = 0  #: how often its next call was refused in this attempt
    left_s: float = 0  #: of its work until that
    left_usd: float = math.inf  #: that it may spend in this attempt, as it was told
    concluded: Conclusion = field(default_factory=lambda: Conclusion(ok=False, output=""))
