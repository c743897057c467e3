"""Merging branches in the object store alone, and verifying them together: what a target is to be moved to.

Branches are coupled in their order, each on what came of those before it; one that conflicts is tried once more at the
end. Then verify is run on all of them at once. Where it fails, the one that breaks it is found by halves and left out,
those before it are sure, and the others are coupled anew.

Commits are made of recorded facts alone, their dates included, so that a daemon that takes over makes the very same
ones and finds the very same runs of verify.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.git import git
from forkjoin.git.commit_identity import Signature, make_signature
from forkjoin.git.fsck import find_malformed
from forkjoin.git.merging import move_target
from forkjoin.git.merging.conflict_hunks import find_hunks
from forkjoin.git.merging.merge_branches_in_order import (
    AlreadyContained,
    BranchConflict,
    MergeCommit,
    MergeOutcome,
    MissingDependency,
    RefusedByGit,
    merge_branches_in_order,
)
from forkjoin.git.refs import Tip, find_tips, short_name
from forkjoin.git.unsaved.submodules import SaveOptions, save_submodule_commits
from forkjoin.git.worktrees.checkout import check_free, find_checkout
from forkjoin.merge_queue.bisect import BrokenBeforeError, longest_passing
from forkjoin.merge_queue.eligible_branches import EligibleBranch, find_eligible_branches
from forkjoin.merge_queue.merge_context import MergeContext
from forkjoin.merge_queue.report import (
    MERGED_BEFORE,
    ConflictedBranch,
    MergedBranch,
    MergeReport,
    PlannedMove,
    RejectedBranch,
    SkippedBranch,
    limit_names,
)
from forkjoin.merge_queue.scratch import ScratchVerifier

#: After so many that broke verify, the others are verified in smaller numbers, as by then most may be bad.
_PATIENCE = 2
#: Characters of what git says of a branch that it refuses.
_WORDS = 500
_CHANGES_SETTINGS = (
    "This changes forkjoin.toml. The new content is used only after a person has trusted it (forkjoin trust)."
)


async def merge_all(order: MergeContext) -> PlannedMove:
    """Merge what can be merged onto the target as it is now."""
    landing = order.landing
    if order.verify:
        await check_free(order.common_dir, landing.target)
    agents = await order.services.store.agents.get_all(landing.agents)
    refs = [f"refs/heads/{agent.worktree.branch}" for agent in agents if agent.worktree.prepared]
    tips = await find_tips(order.common_dir, [landing.target, *refs])
    if landing.target not in tips:
        raise CallerError(f"There is no branch {short_name(landing.target)} any more.")
    old = tips[landing.target]
    train = _Train(order, ScratchVerifier(order), old, await make_signature(order.common_dir, landing.created))
    await train.carry(await find_eligible_branches(order, agents, old, tips))
    await train.find_hunks()
    return _intend(order, train, agents, await _note(order, train))


async def _note(order: MergeContext, train: "_Train") -> str | None:
    """Return a note if the merge changes commands that the repository wants to run."""
    paths = ("diff-tree", "--quiet", train.start.commit, train.head.commit, "--", "forkjoin.toml")
    changed, _, _ = await git.run(order.common_dir, *paths, ok_codes=(0, 1))
    return _CHANGES_SETTINGS if changed else None


def _intend(order: MergeContext, train: "_Train", agents: Sequence[Agent], note: str | None) -> PlannedMove:
    landing = order.landing
    merged = {one.id: one for car in train.cars for one in _merged(car, dry_run=landing.dry_run)}
    fates = [train.fates[one.number] for one in agents if one.number in train.fates and one.id not in merged]
    landed = MergeReport(
        short_name(landing.target),
        None if landing.dry_run else train.head.commit,
        tuple(merged.values()),
        tuple(fate for fate in fates if isinstance(fate, ConflictedBranch)),
        tuple(fate for fate in fates if isinstance(fate, RejectedBranch)),
        tuple(fate for fate in fates if isinstance(fate, SkippedBranch)),
        note=note,
    )
    why = f"forkjoin: merge {', '.join(merged)}"
    return PlannedMove(move_target.Move(landing.target, train.start.commit, train.head.commit, None, why), landed)


@dataclass(frozen=True, slots=True)
class _Car:
    """A branch that was coupled, and the commit that has it."""

    entry: EligibleBranch
    head: Tip


def _merged(car: _Car, *, dry_run: bool) -> Iterator[MergedBranch]:
    """Whom a car has, with what it brings along."""
    for number, tip in {car.entry.agent.number: car.entry.branch.tip.commit, **car.entry.brings}.items():
        yield MergedBranch(f"a{number}") if dry_run else MergedBranch(f"a{number}", car.head.commit, tip)


@dataclass(slots=True)
class _Train:
    """Branches coupled so far, and how the others have fared."""

    order: MergeContext
    scratch: ScratchVerifier
    start: Tip
    signed: Signature
    cars: list[_Car] = field(default_factory=list[_Car])
    sure: int = 0  #: how many of the first have passed verify together
    fates: dict[int, ConflictedBranch | RejectedBranch | SkippedBranch] = field(
        default_factory=dict[int, "ConflictedBranch | RejectedBranch | SkippedBranch"]
    )
    conflicts: dict[int, BranchConflict] = field(default_factory=dict[int, BranchConflict])  #: how each conflicted last

    @property
    def head(self) -> Tip:
        return self._head_of(len(self.cars))

    def _head_of(self, length: int) -> Tip:
        return self.cars[length - 1].head if length else self.start

    async def carry(self, found: Sequence[EligibleBranch | SkippedBranch]) -> None:
        """Couple what can be coupled, and passes verify."""
        self.fates |= {int(one.id[1:]): one for one in found if isinstance(one, SkippedBranch)}
        waiting = await self._leave_out_malformed([one for one in found if isinstance(one, EligibleBranch)])
        aside: list[EligibleBranch] = []  # of earlier, smaller numbers: these are tried once more at the very end
        most, broke = len(waiting), 0
        while waiting:
            left = await self._couple(await self._couple(waiting[:most]))
            behind = await self._drop_what_breaks()
            broke += behind is not None
            rest = waiting[most:]
            if behind is not None:
                waiting = [*behind, *left, *rest]
            elif rest:
                aside, waiting = [*aside, *left], rest
            else:
                aside, waiting = [], aside
            if broke >= _PATIENCE:
                most = most * 2 if behind is None else max(1, most // 2)
        for one in found:
            if isinstance(one, EligibleBranch) and (fate := self.fates.get(one.agent.number)):
                self.fates |= {number: _with(fate, one.agent, number) for number in one.brings}

    async def _leave_out_malformed(self, entries: Sequence[EligibleBranch]) -> list[EligibleBranch]:
        """Return the entries whose objects git takes; the others are rejected."""
        squash = self.order.landing.strategy == "squash"
        brings = {entry: entry.branch.tip.tree if squash else entry.branch.tip.commit for entry in entries}
        aside = self.order.services.home.aside
        bad = await find_malformed(self.order.common_dir, self.start.commit, list(brings.values()), aside)
        for entry, tip in brings.items():
            if tip in bad:
                why = f"git fsck --strict refuses its objects: {bad[tip]}"
                self.fates[entry.agent.number] = RejectedBranch(entry.agent.id, why[:_WORDS])
        return [entry for entry, tip in brings.items() if tip not in bad]

    async def find_hunks(self) -> None:
        """Say where those conflict that are left out."""
        for number, fate in self.fates.items():
            if isinstance(fate, ConflictedBranch):
                how = self.conflicts[number]
                hunks = await find_hunks(self.order.common_dir, how.tree, how.files)
                self.fates[number] = replace(fate, hunks=tuple(hunks))

    async def _couple(self, entries: Sequence[EligibleBranch]) -> list[EligibleBranch]:
        """Couple branches; those that can't be merged now, but may be after the others."""
        able: list[EligibleBranch] = []
        for entry in entries:  # in their order: whether one may come tells of those after it
            able += [entry] if self._may_come(entry, able) else []
        branches = [entry.branch for entry in able]
        squash = self.order.landing.strategy == "squash"
        fates = await merge_branches_in_order(self.order.common_dir, self.head, branches, self.signed, squash=squash)
        if refused := await self._secure_submodules(able, fates):
            self.fates |= refused
            return await self._couple([entry for entry in able if entry.agent.number not in refused])
        return [entry for entry, fate in zip(able, fates, strict=True) if self._may_still_come(entry, fate)]

    async def _secure_submodules(
        self, entries: Sequence[EligibleBranch], fates: Sequence[MergeOutcome]
    ) -> dict[int, SkippedBranch]:
        """Keep branches' submodule commits. Skip branches whose commits can't be kept."""
        refused: dict[int, SkippedBranch] = {}
        for entry, fate in zip(entries, fates, strict=True):
            if isinstance(fate, MergeCommit) and fate.submodules:
                common_dir, landing = self.order.common_dir, self.order.landing
                where = None if landing.dry_run else await find_checkout(common_dir, landing.target)
                keeping = SaveOptions(entry.agent.slug, landing.dry_run, where)
                why = await save_submodule_commits(common_dir, fate.head.commit, fate.submodules, keeping)
                refused |= {entry.agent.number: SkippedBranch(entry.agent.id, why)} if why else {}
        return refused

    def _may_come(self, entry: EligibleBranch, entries: Sequence[EligibleBranch]) -> bool:
        """Whether those whose work a branch has are on the train, or may come with it; else that is its fate."""
        there = {one.agent.number for one in (*(car.entry for car in self.cars), *entries)}
        if missing := sorted(entry.branch.needs - there - self._merged_before()):
            self.fates[entry.agent.number] = _behind(entry, missing[0])
        return not missing

    def _merged_before(self) -> set[int]:
        return {
            number
            for number, fate in self.fates.items()
            if isinstance(fate, SkippedBranch) and fate.why == MERGED_BEFORE
        }

    def _may_still_come(self, entry: EligibleBranch, fate: MergeOutcome) -> bool:
        """Note how a branch fared; whether it is worth another try."""
        agent = entry.agent
        self.fates.pop(agent.number, None)
        match fate:
            case MergeCommit(head):
                self.cars.append(_Car(entry, head))
            case AlreadyContained():
                self.fates[agent.number] = SkippedBranch(agent.id, MERGED_BEFORE)
            case RefusedByGit(why):
                self.fates[agent.number] = RejectedBranch(agent.id, f"git can't merge it: {why}")
            case BranchConflict(files):
                self.fates[agent.number] = ConflictedBranch(agent.id, limit_names(files))
                self.conflicts[agent.number] = fate
                return True
            case MissingDependency():
                self.fates[agent.number] = _behind(entry, min(entry.branch.needs))
                return True
        return False

    async def _drop_what_breaks(self) -> list[EligibleBranch] | None:
        """Those behind the one that breaks verify, which are uncoupled with it; none where all pass."""
        length = len(self.cars) - self.sure
        try:
            self.sure += await longest_passing(length, self._passes) if length else 0
        except BrokenBeforeError:
            raise CallerError(
                f"verify fails on {self.order.into} itself, without any of these; nothing was merged. "
                f"Mend that first. {await self._why_not(0)}"
            ) from None
        if self.sure == len(self.cars):
            return None
        bad, *behind = self.cars[self.sure :]
        self.fates[bad.entry.agent.number] = RejectedBranch(bad.entry.agent.id, await self._why_not(1))
        del self.cars[self.sure :]
        return [car.entry for car in behind]

    async def _passes(self, length: int) -> bool:
        return not await self._why_not(length)

    async def _why_not(self, length: int) -> str:
        """How verify fails with so many more branches than are sure; '' where it passes. Each time the same."""
        if self.order.verify is None or (length == 0 and self.sure):
            return ""
        length += self.sure
        agents = [car.entry.agent for car in self.cars[:length]]
        return await self.scratch.verify(agents, self._head_of(length).commit, self.order.verify)


def _with(fate: ConflictedBranch | RejectedBranch | SkippedBranch, resolver: Agent, number: int) -> SkippedBranch:
    """How an agent's branch fares that is not merged with whoever resolves its conflict."""
    if isinstance(fate, SkippedBranch) and fate.why == MERGED_BEFORE:
        return replace(fate, id=f"a{number}")
    return SkippedBranch(f"a{number}", f"{resolver.label}, which resolves its conflict, was not merged")


def _behind(entry: EligibleBranch, other: int) -> SkippedBranch:
    return SkippedBranch(entry.agent.id, f"it has the work of a{other}, which was not merged")
