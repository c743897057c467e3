"""Merge jobs: calls of merge_worktree on their way through the merge queue."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from forkjoin.core.model import lead_of

#: How a branch lands: as a merge commit, or as one commit that has all of its changes.
Strategy = Literal["merge", "squash"]
#: Whether a conflict is only told, or an agent is spawned to resolve it.
OnConflict = Literal["report", "agent"]


class MergeJobState(StrEnum):
    """Where a landing stands. What is being moved is on disk before the first file is touched."""

    QUEUED = "queued"  #: asked for
    MOVING = "moving"  #: merged and verified; the target is being moved
    DONE = "done"  #: its answer is recorded


@dataclass(frozen=True, slots=True)
class MergeJob:
    """One call of merge_worktree: branches on their way to a target."""

    number: int
    project: int
    lead: str
    agents: tuple[int, ...]
    target: str  #: a full ref name, refs/heads/main
    verify: str | None
    dry_run: bool
    environment: str
    state: MergeJobState
    created: float
    move: str | None = None  #: JSON of what is being moved, or was; none where nothing is
    answer: str | None = None  #: JSON of what was answered, once `DONE`
    checkout: str = ""  #: the user's, where it was asked for; '' in a bare repository
    strategy: Strategy = "merge"
    include_failed: bool = False  #: also branches of agents that did not succeed
    undoes: int | None = None  #: the number of the landing that it takes back
    on_conflict: OnConflict = "report"

    @property
    def requesting_agent(self) -> int | None:
        """The number of the agent that has asked for it; none where no agent has."""
        number = self.lead.removeprefix(lead_of(0)[:-1])
        return int(number) if number != self.lead and number.isdecimal() else None
