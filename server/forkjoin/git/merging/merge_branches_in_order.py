"""Merging many branches, one after the other, in the object store alone: what git does one by one, in few calls.

A branch that touches nothing that another one, or the target, has touched since it left needs no merge: its changes
are taken as they are. Where paths meet, git merges the trees, for those alone (git-merge-tree(1)). The commits of all
of them are then made in one stream. A branch that left the target at several commits, or shares commits with another,
is merged by git with all of its history.
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

#: Since git 2.45 merge-tree takes trees; before that, each branch is merged with its history.
_MERGES_TREES = (2, 45)

#: Of more branches than this, the objects are put on disk together: one by one takes milliseconds for each.
_MANY = 8


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch that is to be merged, and what its commit is to say."""

    number: int  #: by which others need it
    tip: Tip
    message: str
    needs: frozenset[int] = frozenset()  #: those without which it is not merged; of these, all are before it
    base: str | None = None  #: where it began, if the target has all of that in other commits (squashed)


@dataclass(frozen=True, slots=True)
class MergeCommit:
    head: Tip  #: the commit that has it, and all that was joined before it
    submodules: tuple[PathChange, ...] = ()  #: those that it adds or moves


@dataclass(frozen=True, slots=True)
class BranchConflict:
    files: tuple[str, ...]
    tree: str  #: what git makes of it, with the conflicts marked in its files


@dataclass(frozen=True, slots=True)
class AlreadyContained:
    """All of it was there already."""


@dataclass(frozen=True, slots=True)
class RefusedByGit:
    """git can't merge it at all."""

    why: str


@dataclass(frozen=True, slots=True)
class MissingDependency:
    """One that it needs could not be merged."""


_Failed = BranchConflict | RefusedByGit | MissingDependency
MergeOutcome = MergeCommit | AlreadyContained | _Failed

_TreeOutcome = (
    list[PathChange] | AlreadyContained | BranchConflict | RefusedByGit
)  #: of a merge whose commit is not made yet


async def merge_branches_in_order(
    common_dir: str, head: Tip, branches: Sequence[Branch], signed: Signature, *, squash: bool = False
) -> list[MergeOutcome]:
    """How each of these branches fares that are merged onto `head` in their order, each on what came of those before.

    One that can't be merged is left out. With `squash`, each becomes one commit, by its own author.
    """
    if not branches:
        return []
    added = await find_commits_since_base(common_dir, head.commit, [branch.tip for branch in branches])
    many = len(branches) > _MANY
    merger = _Merger(common_dir, head, signed, squash, NO_FSYNC if many else ())
    trees, here = await read_version() >= _MERGES_TREES, {branch.number for branch in branches}
    steps = [_Step(branch, one) for branch, one in zip(branches, added, strict=True)]
    for is_quick, group in groupby(steps, lambda step: trees and step.is_quick(here)):
        if is_quick:
            await merger.merge_quickly(list(group))
        else:
            for step in group:
                await merger.merge(step)
    if many:
        await sync_objects(common_dir)
    return list(merger.fates.values())


@dataclass(frozen=True, slots=True)
class _Step:
    branch: Branch
    added: CommitsSinceBase

    def is_quick(self, here: Set[int]) -> bool:
        return self.added.base is not None and self.branch.base is None and self.branch.needs.isdisjoint(here)

    @property
    def base(self) -> Tip:
        assert self.added.base
        return self.added.base


@dataclass(slots=True)
class _Merger:
    common_dir: str
    head: Tip
    signed: Signature
    squash: bool
    how: Sequence[str]  #: options of git's own
    fates: dict[int, MergeOutcome] = field(default_factory=dict[int, MergeOutcome])  #: by branches' numbers

    async def merge(self, step: _Step) -> None:
        """Merge one branch with all of its history."""
        number, tip = step.branch.number, step.branch.tip.commit
        if any(isinstance(self.fates.get(needed), _Failed) for needed in step.branch.needs):
            self.fates[number] = MissingDependency()
            return
        if not step.added.commits or await is_ancestor(self.common_dir, tip, self.head.commit):
            self.fates[number] = AlreadyContained()
            return
        (merged,) = await self._try([MergePair(self.head.commit, tip, step.branch.base)])
        if isinstance(merged, str):
            (changes,) = await changes_between_pairs(self.common_dir, [(self.head.tree, merged)])
            await self._commit([(step, changes)])
        else:
            self.fates[number] = merged

    async def merge_quickly(self, steps: Sequence[_Step]) -> None:
        """Merge branches that left the target at one commit each, and share none with another."""
        bases = list(dict.fromkeys(step.base.tree for step in steps))
        theirs = [(step.base.tree, step.branch.tip.tree) for step in steps]
        found = await changes_between_pairs(self.common_dir, [*theirs, *((base, self.head.tree) for base in bases)])
        changes, ours = found[: len(steps)], dict(zip(bases, found[len(steps) :], strict=True))
        chains = find_overlapping_branches(changes, [step.base.tree for step in steps], ours)
        merged = await self._merge_trees([[steps[place] for place in chain] for chain in chains])
        await self._commit([(step, merged.get(step, its)) for step, its in zip(steps, changes, strict=True)])

    async def _merge_trees(self, chains: Sequence[Sequence[_Step]]) -> Mapping[_Step, _TreeOutcome]:
        """What each of these changes, after those before it in its chain: one of each chain at a time.

        What touches nothing of theirs is left aside.
        """
        pairs: dict[_Step, tuple[str, str]] = {}
        failed: dict[_Step, BranchConflict | RefusedByGit] = {}
        trees = [self.head.tree] * len(chains)
        for round_ in zip_longest(*chains):
            todo = [(chain, step) for chain, step in enumerate(round_) if step]
            wanted = [MergePair(trees[chain], step.branch.tip.commit, step.base.commit) for chain, step in todo]
            for (chain, step), merged in zip(todo, await self._try(wanted), strict=True):
                if isinstance(merged, str):
                    pairs[step] = trees[chain], merged
                    trees[chain] = merged
                else:
                    failed[step] = merged
        changes = await changes_between_pairs(self.common_dir, list(pairs.values())) if pairs else []
        return failed | dict(zip(pairs, changes, strict=True))

    async def _try(self, wanted: Sequence[MergePair]) -> list[str | BranchConflict | RefusedByGit]:
        """The tree that comes of each of these merges, if one does."""
        return [_tree_outcome(merged) for merged in await try_merges(self.common_dir, wanted, self.how)]

    async def _commit(self, done: Sequence[tuple[_Step, _TreeOutcome]]) -> None:
        """Make the commits of what could be merged; squashed, what changes nothing needs none."""
        came = [(step, AlreadyContained() if self.squash and outcome == [] else outcome) for step, outcome in done]
        new = [self._commit_of(step, outcome) for step, outcome in came if isinstance(outcome, list)]
        made = iter(await make_commits(self.common_dir, self.head.commit, new, self.how))
        for step, outcome in came:
            self.head = next(made) if isinstance(outcome, list) else self.head
            self.fates[step.branch.number] = _join(self.head, outcome) if isinstance(outcome, list) else outcome

    def _commit_of(self, step: _Step, changes: Sequence[PathChange]) -> NewCommit:
        tip, message, signed = step.branch.tip.commit, step.branch.message, self.signed
        if not self.squash:
            return NewCommit(changes, tip, message, signed.author, signed.committer)
        first, *others = dict.fromkeys(commit.author for commit in step.added.commits)
        trailers = "".join(f"Co-authored-by: {name}\n" for name in others)
        author = f"{first} {int(step.added.commits[0].at or 0)} +0000"
        return NewCommit(changes, None, f"{message}{trailers}", author, signed.committer)


def _join(head: Tip, changes: Sequence[PathChange]) -> MergeCommit:
    return MergeCommit(head, tuple(one for one in changes if one.new[0] == SUBMODULE))


def _tree_outcome(merged: TriedMerge | GitError) -> str | BranchConflict | RefusedByGit:
    if isinstance(merged, GitError):
        return RefusedByGit(merged.last_line)
    return BranchConflict(merged.conflicts, merged.tree) if merged.conflicts else merged.tree
