"""What a landing answers with, as it is recorded and as the lead gets it."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from forkjoin.core.model import Merge
from forkjoin.git.file_names import printable
from forkjoin.git.merging.move_target import Move

#: Why a branch is skipped that leaves it as well merged as it was.
MERGED_BEFORE = "merged before"
NOTHING = "nothing: it has no commits"


@dataclass(frozen=True, slots=True)
class MergedBranch:
    id: str
    commit: str | None = None  #: of the merge; none in a dry run
    tip: str | None = None  #: where its branch was; for our records alone


@dataclass(frozen=True, slots=True)
class ConflictedBranch:
    id: str
    files: tuple[str, ...]
    hunks: tuple[str, ...] = ()  #: the first places in them: file, line, and both sides
    resolving: str | None = None  #: the agent that it was given to


@dataclass(frozen=True, slots=True)
class RejectedBranch:
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class SkippedBranch:
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class MergeReport:
    """How each branch fared, and where the target is now. With `error`, nothing was landed."""

    target: str
    commit: str | None
    merged: tuple[MergedBranch, ...] = ()
    conflicted: tuple[ConflictedBranch, ...] = ()
    rejected: tuple[RejectedBranch, ...] = ()
    skipped: tuple[SkippedBranch, ...] = ()
    error: str | None = None
    undone: tuple[str, ...] = ()  #: agents whose merge was taken back
    reverted: bool = False  #: by a commit of its own, since others had built on it
    note: str | None = None  #: what else the lead should know

    def merges(self) -> dict[int, Merge]:
        """How each agent's branch fares; nothing of those that were skipped for what may change."""
        groups = (
            (self.merged, Merge.MERGED),
            (self.conflicted, Merge.CONFLICTED),
            (self.rejected, Merge.REJECTED),
            ([one for one in self.skipped if one.why == MERGED_BEFORE], Merge.MERGED),
            ([one for one in self.skipped if one.why == NOTHING], Merge.NOTHING),
        )
        return {int(one.id[1:]): merge for ones, merge in groups for one in ones}


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """A move that is about to be made, and what to answer once it is."""

    move: Move
    landed: MergeReport


#: How many names are told before the rest is only counted.
_NAMED = 30


def limit_names(names: Sequence[str]) -> tuple[str, ...]:
    """The first of these files' names, as they can be told, and how many more there are."""
    more = [f"… and {len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return (*map(printable, names[:_NAMED]), *more)


MERGE_REPORT = TypeAdapter(MergeReport)
PLANNED_MOVE = TypeAdapter(PlannedMove)
