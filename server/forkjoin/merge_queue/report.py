"""The report of a merge job: how each branch fared. Recorded as JSON, and returned to the lead."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import TypeAdapter

from forkjoin.core.model import Merge, PauseReason
from forkjoin.git.file_names import printable
from forkjoin.git.merging.move_target import TargetMove

#: How many file names a report lists before it only counts the rest.
_NAMES_LISTED = 30


class SkipReason(StrEnum):
    """Why a branch was skipped: its merge was not tried, or depends on another merge that failed."""

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


#: The sentence that a lead reads for each reason. `skip` fills in the details.
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

#: The merge states of skipped branches whose work isn't missing from the target.
_MERGE_STATES = {SkipReason.ALREADY_MERGED: Merge.MERGED, SkipReason.NO_COMMITS: Merge.NOTHING}

#: The sentences of skipped branches whose work isn't missing from the target.
NOTHING_LEFT_TO_MERGE = frozenset(_SENTENCES[reason] for reason in _MERGE_STATES)


@dataclass(frozen=True, slots=True)
class MergedBranch:
    id: str
    commit: str | None = None  #: the merge commit; `None` in a dry run
    tip: str | None = None  #: the branch's commit at the time of the merge; kept in the record only


@dataclass(frozen=True, slots=True)
class ConflictedBranch:
    id: str
    files: tuple[str, ...]
    hunks: tuple[str, ...] = ()  #: the first conflicts in the files: file, line and both sides
    resolving: str | None = None  #: the id of the agent that resolves the conflict


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
        """Whether the target lacks nothing of the branch's work."""
        return self.reason in _MERGE_STATES


def skip(agent_id: str, reason: SkipReason, *details: object) -> SkippedBranch:
    """Return a skipped branch with the sentence for this reason and these details."""
    return SkippedBranch(agent_id, _SENTENCES[reason].format(*details), reason)


@dataclass(frozen=True, slots=True)
class MergeReport:
    """How each branch of a merge job fared, and the target's commit. With `error`, the target did not move."""

    target: str
    commit: str | None
    merged: tuple[MergedBranch, ...] = ()
    conflicted: tuple[ConflictedBranch, ...] = ()
    rejected: tuple[RejectedBranch, ...] = ()
    skipped: tuple[SkippedBranch, ...] = ()
    error: str | None = None
    undone: tuple[str, ...] = ()  #: ids of the agents whose merge was undone
    reverted: bool = False  #: whether a revert commit undid the merge, because later commits build on it
    note: str | None = None  #: what else the lead should know

    def merge_states(self) -> dict[int, Merge]:
        """Return each agent's new merge state, by number.

        Skipped branches that may still be merged are omitted.
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
    """A move of the target that is about to happen, and the report to give afterwards."""

    move: TargetMove
    landed: MergeReport


def limit_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the first file names in printable form, and how many more there are."""
    more = [f"… and {len(names) - _NAMES_LISTED} more"] if len(names) > _NAMES_LISTED else []
    return (*map(printable, names[:_NAMES_LISTED]), *more)


MERGE_REPORT = TypeAdapter(MergeReport)
PLANNED_MOVE = TypeAdapter(PlannedMove)
