"""Merge jobs: calls of merge_worktree on their way through the merge queue."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from forkjoin.core.model import lead_of

#: How a branch is merged: with a merge commit, or as one commit with all its changes.
Strategy = Literal["merge", "squash"]
#: The reaction to a conflict: only report the conflict, or spawn an agent that resolves it.
OnConflict = Literal["report", "agent"]


class MergeJobState(StrEnum):
    """The state of a merge job. `MOVING` is recorded before the target's first file or ref changes."""

    QUEUED = "queued"  #: waiting, or being merged and verified in a scratch worktree
    MOVING = "moving"  #: merged and verified; the target is being moved
    DONE = "done"  #: the job's answer is recorded


@dataclass(frozen=True, slots=True)
class MergeJob:
    """One call of merge_worktree: branches on their way to a target."""

    number: int
    project: int
    lead: str
    agents: tuple[int, ...]
    target: str  #: a full ref name, e.g. refs/heads/main
    verify: str | None
    dry_run: bool
    environment: str
    state: MergeJobState
    created: float
    move: str | None = None  #: JSON that describes the move of the target; None if the target does not move
    answer: str | None = None  #: JSON of the answer to the call; None until the job is `DONE`
    checkout: str = ""  #: path of the user's checkout in which the call was made; empty for a bare repository
    strategy: Strategy = "merge"
    include_failed: bool = False  #: whether to merge branches of agents that did not succeed
    undoes: int | None = None  #: the number of the merge job that this job undoes
    on_conflict: OnConflict = "report"

    @property
    def trouble_key(self) -> str:
        """Return the key of the job's target in `Reconciler.trouble`.

        Jobs with the same target run one after the other.
        """
        return f"merge into {self.target} in {self.project}"

    @property
    def requesting_agent(self) -> int | None:
        """The number of the agent that made the call, or None if a lead or a person did."""
        number = self.lead.removeprefix(lead_of(0)[:-1])
        return int(number) if number != self.lead and number.isdecimal() else None
