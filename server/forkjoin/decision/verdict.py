"""What an attempt came to, and what a wait has to tell. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from forkjoin.model import FINAL, Agent, Outcome, State, Verify


def final_state(outcome: Outcome, *, stop_asked: bool, concluded_ok: bool, verify: Verify) -> State:
    """An attempt's final state. A stop that was asked for says more than what it did to the program."""
    if stop_asked:
        return State.STOPPED
    match outcome.kind:
        case "timed_out":
            return State.TIMED_OUT
        case "lost":
            return State.LOST
        case "exited" | "signalled" | "not_started" | "limited":
            return State.SUCCEEDED if concluded_ok and verify is not Verify.FAILED else State.FAILED


@dataclass(frozen=True, slots=True)
class Waited:
    """How those that are waited for stand, in the order asked for."""

    finished: list[Agent]
    pending: list[Agent]

    def is_over(self, until: Literal["all", "any"]) -> bool:
        """Whether there is nothing to wait for any more."""
        return not self.pending or (until == "any" and bool(self.finished))


def divide(agents: Sequence[Agent]) -> Waited:
    return Waited([a for a in agents if a.state in FINAL], [a for a in agents if a.state not in FINAL])
