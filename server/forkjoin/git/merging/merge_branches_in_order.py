"""Merging many branches in order, in the object store only and in few calls of git.

Each branch is merged onto the result of the branches before it.

A branch whose changes don't overlap with those of the target or of another branch needs no merge: its changes are
applied as they are. For overlapping branches, git merges the trees (git-merge-tree(1)). Then one call makes the merge
commits of all branches (git-fast-import(1)). A branch that starts at several commits of the target, or shares commits
with another branch, is merged by git with its whole history.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import groupby, zip_longest

from forkjoin.core.error import GitError
from forkjoin.git.changed_paths import SUBMODULE, PathChange, changes_between_pairs
from forkjoin.git.commit_identity import Signature
from forkjoin.git.commits_since_base import CommitsSinceBase, find_commits_since_base
from forkjoin.git.fast_import import NewCommit, make_commits
from forkjoin.git.git_version import read_version
from forkjoin.git.merge_tree import MergePair, TriedMerge, try_merges
from forkjoin.git.merging.overlapping_branches import find_overlapping_branches
from forkjoin.git.objects import sync_objects
from forkjoin.git.refs import Tip, is_ancestor
from forkjoin.git.safe_options import NO_FSYNC

#: The first version of git whose merge-tree can merge trees. With an older git, each branch is merged with its history.
_TREES_SINCE = (2, 45)

#: For more branches than this, all new objects are flushed to disk together, as an fsync of each takes milliseconds.
_SYNC_TOGETHER = 8


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch to merge, and the message of its merge commit."""

    number: int  #: a number that no other branch of the same call has
    tip: Tip
    message: str
    needs: frozenset[int] = (
        frozenset()
    )  #: the numbers of branches, earlier in the list, without which this one is skipped
    #: The commit to use as the merge base instead of git's, if the target has a part of the branch in squashed commits.
    base: str | None = None


@dataclass(frozen=True, slots=True)
class MergeCommit:
    """The outcome of a branch that was merged."""

    head: Tip  #: the merge commit, which also contains the branches merged before
    submodules: tuple[PathChange, ...] = ()  #: submodules that the branch adds or moves to another commit


@dataclass(frozen=True, slots=True)
class BranchConflict:
    """The outcome of a branch that conflicts with the target or with the branches merged before."""

    files: tuple[str, ...]
    tree: str  #: git's merged tree, with conflict markers in the files


@dataclass(frozen=True, slots=True)
class AlreadyContained:
    """The outcome of a branch whose changes the target, or a branch merged before, already has."""


@dataclass(frozen=True, slots=True)
class RefusedByGit:
    """The outcome of a branch that git refuses to merge, e.g. because of unrelated histories."""

    why: str  #: git's error message


@dataclass(frozen=True, slots=True)
class MissingDependency:
    """The outcome of a branch that needs another one that was not merged."""


_Failed = BranchConflict | RefusedByGit | MissingDependency
MergeOutcome = MergeCommit | AlreadyContained | _Failed

#: The outcome of merging a branch's trees: the changes to commit, or why there is no commit.
_TreeOutcome = list[PathChange] | AlreadyContained | BranchConflict | RefusedByGit


async def merge_branches_in_order(
    common_dir: str, head: Tip, branches: Sequence[Branch], signature: Signature, *, squash: bool = False
) -> list[MergeOutcome]:
    """Merge the branches onto `head`, each onto the result of the branches before it.

    Skip branches that can't be merged. Return the outcome of each branch, in order. No ref changes.

    Args:
        common_dir: The repository's common git folder.
        head: The target's commit.
        branches: The branches, in order.
        signature: The author and committer of the merge commits.
        squash: Whether to make one ordinary commit of each branch, by the branch's author, instead of a merge commit.
    """
    if not branches:
        return []
    added = await find_commits_since_base(common_dir, head.commit, [branch.tip for branch in branches])
    many = len(branches) > _SYNC_TOGETHER
    merger = _Merger(common_dir, head, signature, squash, NO_FSYNC if many else ())
    takes_trees = await read_version() >= _TREES_SINCE
    numbers = {branch.number for branch in branches}
    steps = [_BranchStep(branch, one) for branch, one in zip(branches, added, strict=True)]
    for is_simple, group in groupby(steps, lambda step: takes_trees and step.is_simple(numbers)):
        if is_simple:
            await merger.merge_trees(list(group))
        else:
            for step in group:
                await merger.merge(step)
    if many:
        await sync_objects(common_dir)
    return list(merger.outcomes.values())


@dataclass(frozen=True, slots=True)
class _BranchStep:
    branch: Branch
    added: CommitsSinceBase

    def is_simple(self, numbers: Set[int]) -> bool:
        """Return whether trees suffice for the merge, without the branch's history.

        They do if the branch has one base, which git finds itself, and needs no other branch of this call.

        Args:
            numbers: The numbers of all branches of this call.
        """
        return self.added.base is not None and self.branch.base is None and self.branch.needs.isdisjoint(numbers)

    @property
    def base(self) -> Tip:
        assert self.added.base
        return self.added.base


@dataclass(slots=True)
class _Merger:
    common_dir: str
    head: Tip
    signature: Signature
    squash: bool
    git_options: Sequence[str]
    #: the outcomes so far, by the branches' numbers
    outcomes: dict[int, MergeOutcome] = field(default_factory=dict[int, MergeOutcome])

    async def merge(self, step: _BranchStep) -> None:
        """Merge one branch with its whole history."""
        number, tip = step.branch.number, step.branch.tip.commit
        if any(isinstance(self.outcomes.get(needed), _Failed) for needed in step.branch.needs):
            self.outcomes[number] = MissingDependency()
            return
        if not step.added.commits or await is_ancestor(self.common_dir, tip, self.head.commit):
            self.outcomes[number] = AlreadyContained()
            return
        (merged,) = await self._try([MergePair(self.head.commit, tip, step.branch.base)])
        if isinstance(merged, str):
            (changes,) = await changes_between_pairs(self.common_dir, [(self.head.tree, merged)])
            await self._commit([(step, changes)])
        else:
            self.outcomes[number] = merged

    async def merge_trees(self, steps: Sequence[_BranchStep]) -> None:
        """Merge the trees of simple branches, and commit the results in order."""
        bases = list(dict.fromkeys(step.base.tree for step in steps))
        theirs = [(step.base.tree, step.branch.tip.tree) for step in steps]
        found = await changes_between_pairs(self.common_dir, [*theirs, *((base, self.head.tree) for base in bases)])
        changes, ours = found[: len(steps)], dict(zip(bases, found[len(steps) :], strict=True))
        groups = find_overlapping_branches(changes, [step.base.tree for step in steps], ours)
        merged = await self._merge_groups([[steps[index] for index in group] for group in groups])
        await self._commit([(step, merged.get(step, its)) for step, its in zip(steps, changes, strict=True)])

    async def _merge_groups(self, groups: Sequence[Sequence[_BranchStep]]) -> Mapping[_BranchStep, _TreeOutcome]:
        """Merge each group's branches in order. Return the outcome of each branch.

        One call of git merges the next branch of every group. Since the groups don't affect each other, a branch's
        changes are the same without the other groups.
        """
        pairs: dict[_BranchStep, tuple[str, str]] = {}
        failed: dict[_BranchStep, BranchConflict | RefusedByGit] = {}
        trees = [self.head.tree] * len(groups)
        for steps in zip_longest(*groups):
            todo = [(group, step) for group, step in enumerate(steps) if step]
            wanted = [MergePair(trees[group], step.branch.tip.commit, step.base.commit) for group, step in todo]
            for (group, step), merged in zip(todo, await self._try(wanted), strict=True):
                if isinstance(merged, str):
                    pairs[step] = trees[group], merged
                    trees[group] = merged
                else:
                    failed[step] = merged
        changes = await changes_between_pairs(self.common_dir, list(pairs.values())) if pairs else []
        return failed | dict(zip(pairs, changes, strict=True))

    async def _try(self, wanted: Sequence[MergePair]) -> list[str | BranchConflict | RefusedByGit]:
        """Merge each pair. Return its merged tree, or why it could not be merged."""
        return [_tree_outcome(merged) for merged in await try_merges(self.common_dir, wanted, self.git_options)]

    async def _commit(self, merged: Sequence[tuple[_BranchStep, _TreeOutcome]]) -> None:
        """Commit the branches that could be merged, and record all outcomes.

        With `squash`, a branch without changes gets no commit.

        Args:
            merged: The branches in order, each with the outcome of merging its trees.
        """
        final = [(step, AlreadyContained() if self.squash and outcome == [] else outcome) for step, outcome in merged]
        new = [self._describe_commit(step, outcome) for step, outcome in final if isinstance(outcome, list)]
        made = iter(await make_commits(self.common_dir, self.head.commit, new, self.git_options))
        for step, outcome in final:
            self.head = next(made) if isinstance(outcome, list) else self.head
            self.outcomes[step.branch.number] = (
                _merge_commit(self.head, outcome) if isinstance(outcome, list) else outcome
            )

    def _describe_commit(self, step: _BranchStep, changes: Sequence[PathChange]) -> NewCommit:
        tip, message, signature = step.branch.tip.commit, step.branch.message, self.signature
        if not self.squash:
            return NewCommit(changes, tip, message, signature.author, signature.committer)
        first, *others = dict.fromkeys(commit.author for commit in step.added.commits)
        trailers = "".join(f"Co-authored-by: {name}\n" for name in others)
        author = f"{first} {int(step.added.commits[0].at or 0)} +0000"
        return NewCommit(changes, None, f"{message}{trailers}", author, signature.committer)


def _merge_commit(head: Tip, changes: Sequence[PathChange]) -> MergeCommit:
    return MergeCommit(head, tuple(one for one in changes if one.new[0] == SUBMODULE))


def _tree_outcome(merged: TriedMerge | GitError) -> str | BranchConflict | RefusedByGit:
    if isinstance(merged, GitError):
        return RefusedByGit(merged.last_line)
    return BranchConflict(merged.conflicts, merged.tree) if merged.conflicts else merged.tree
