"""The report of a merge job: the outcome of each branch. It is recorded as JSON, and returned to the lead."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field, TypeAdapter

from forkjoin.core.model import Merge, PauseReason
from forkjoin.git.file_names import printable
from forkjoin.git.merging.move_target import TargetMove

#: How many file names a report lists before it only counts the rest.
_NAMES_LISTED = 30


class SkipReason(StrEnum):
    """Why a branch was skipped: its merge was not tried, or another branch that it needs was not merged."""

    ALREADY_MERGED = "already_merged"
    NO_COMMITS = "no_commits"
    ATTACHED = "attached"
    NOT_ENDED = "not_ended"
    NOT_SUCCEEDED = "not_succeeded"
    NOT_BEST_CANDIDATE = "not_best_candidate"
    BRANCH_GONE = "branch_gone"
    BRANCH_IS_SYMBOLIC = "branch_is_symbolic"
    MOVED_SINCE_END = "moved_since_end"
    CONFLICT_UNRESOLVED = "conflict_unresolved"
    RESTORES_UNDONE_WORK = "restores_undone_work"
    BASE_AGENT_NOT_NAMED = "base_agent_not_named"
    BASE_AGENT_SKIPPED = "base_agent_skipped"
    BASE_AGENT_NOT_MERGED = "base_agent_not_merged"
    RESOLVER_NOT_MERGED = "resolver_not_merged"
    SUBMODULE_COMMITS_UNSAVED = "submodule_commits_unsaved"


#: The words that a lead reads for each reason. `skip` fills in the details.
_SENTENCES = {
    SkipReason.ALREADY_MERGED: "merged before",
    SkipReason.NO_COMMITS: "nothing: it has no commits",
    SkipReason.ATTACHED: PauseReason.PERSON_ATTACHED.sentence,
    SkipReason.NOT_ENDED: "not ended yet (it is {}); wait for it with wait_agents",
    SkipReason.NOT_SUCCEEDED: "it did not succeed (it is {}); see get_result",
    SkipReason.NOT_BEST_CANDIDATE: "it lost to {}; to merge it all the same, name it without the other candidates",
    SkipReason.BRANCH_GONE: "its branch is gone",
    SkipReason.BRANCH_IS_SYMBOLIC: "its branch is {}",
    SkipReason.MOVED_SINCE_END: "{0}, which nobody has reviewed. Review it with read_diff {1}, then merge {1}",
    SkipReason.CONFLICT_UNRESOLVED: "it did not resolve the conflict: {}",
    SkipReason.RESTORES_UNDONE_WORK: "it would bring back the work of {}, which the target no longer contains: merge "
    "that first, or with it",
    SkipReason.BASE_AGENT_NOT_NAMED: "it has the work of {}, which is not in {}: name that agent too",
    SkipReason.BASE_AGENT_SKIPPED: "it has the work of {}, which is skipped",
    SkipReason.BASE_AGENT_NOT_MERGED: "it has the work of {}, which was not merged",
    SkipReason.RESOLVER_NOT_MERGED: "{}, which resolves its conflict, was not merged",
    SkipReason.SUBMODULE_COMMITS_UNSAVED: "{}",
}

#: The new merge states of skipped agents, for the reasons that leave nothing to merge.
_MERGE_STATES = {SkipReason.ALREADY_MERGED: Merge.MERGED, SkipReason.NO_COMMITS: Merge.NOTHING}

#: The words for the reasons that leave nothing to merge.
NOTHING_LEFT_TO_MERGE = frozenset(_SENTENCES[reason] for reason in _MERGE_STATES)


@dataclass(frozen=True, slots=True)
class MergedBranch:
    id: str  #: of the branch's agent, e.g. "a1"; likewise in the other branches of a report
    commit: str | None = None  #: the merge commit, or the commit of a squash; `None` in a dry run
    tip: str | None = None  #: the branch's commit at the time of the merge; kept in the record only


@dataclass(frozen=True, slots=True)
class ConflictedBranch:
    id: str
    files: tuple[str, ...]
    hunks: tuple[str, ...] = ()  #: the first conflicts in the files: file, line and both sides
    resolving: str | None = None  #: the id of the agent that resolves the conflict; `None` if no agent does


@dataclass(frozen=True, slots=True)
class RejectedBranch:
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class SkippedBranch:
    id: str
    why: str
    reason: SkipReason | None = None  #: `None` in records of version 0.1

    @property
    def has_nothing_to_merge(self) -> bool:
        """Whether the branch has no commits, or the target already contains all of them."""
        return self.reason in _MERGE_STATES


def skip(agent_id: str, reason: SkipReason, *details: object) -> SkippedBranch:
    """Return a skipped branch with the sentence for this reason and these details."""
    return SkippedBranch(agent_id, _SENTENCES[reason].format(*details), reason)


@dataclass(frozen=True, slots=True)
class MergeReport:
    """The outcome of a merge job: of each branch, and of the target. With `error`, the target did not move."""

    target: str  #: the short name of the branch
    commit: str | None  #: the target's commit after the job; `None` after an error or a dry run
    merged: tuple[MergedBranch, ...] = ()
    conflicted: tuple[ConflictedBranch, ...] = ()
    rejected: tuple[RejectedBranch, ...] = ()
    skipped: tuple[SkippedBranch, ...] = ()
    error: str | None = None
    undone: tuple[str, ...] = ()  #: ids of the agents whose merge was undone
    reverted: bool = False  #: whether a revert commit undid the merge, because the target has later commits
    note: str | None = None  #: remarks for the lead, e.g. about git configuration that changed during verify

    def merge_states(self) -> dict[int, Merge]:
        """Return the new merge state of agents, by number.

        Agents whose branch was skipped but still has work to merge keep their merge state, and are left out.
        """
        groups = (
            (self.merged, Merge.MERGED),
            (self.conflicted, Merge.CONFLICTED),
            (self.rejected, Merge.REJECTED),
        )
        states = {int(branch.id[1:]): state for branches, state in groups for branch in branches}
        for branch in self.skipped:
            if branch.reason and (state := _MERGE_STATES.get(branch.reason)):
                states[int(branch.id[1:])] = state
        return states


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """A move of the target that is about to happen, and the report to give afterwards.

    It is recorded before the target moves, as JSON under the field names of version 0.1.
    """

    move: TargetMove
    report: Annotated[MergeReport, Field(alias="landed")]


def limit_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the first names in printable form.

    If more names follow, the last item says how many.
    """
    more = [f"… and {len(names) - _NAMES_LISTED} more"] if len(names) > _NAMES_LISTED else []
    return (*map(printable, names[:_NAMES_LISTED]), *more)


MERGE_REPORT = TypeAdapter(MergeReport)
PLANNED_MOVE = TypeAdapter(PlannedMove)
