"""The merge train: branches merged one after the other in the object store, and verified together.

The result is the commit that the target will move to. Each branch is merged onto the branches before it. A branch that
conflicts is tried once more after the others. Then verify runs once on the whole train. If verify fails, bisection
finds the branch that breaks it. That branch is rejected, the branches before it count as verified, and the branches
after it are merged again.

The content of merge commits, including their dates, depends only on recorded facts. So a daemon that takes over makes
identical commits, and finds the recorded results of verify for them.
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
    ConflictedBranch,
    MergedBranch,
    MergeReport,
    PlannedMove,
    RejectedBranch,
    SkippedBranch,
    SkipReason,
    limit_names,
    skip,
)
from forkjoin.merge_queue.scratch import ScratchVerifier

#: After this many branches broke verify, branches are verified in smaller batches: most may be broken by then.
_FAILURES_BEFORE_SMALLER_BATCHES = 2
#: How many characters of git's error a report quotes.
_ERROR_CHARS = 500
_CHANGES_SETTINGS = (
    "This changes forkjoin.toml. The new content is used only after a person has trusted it (forkjoin trust)."
)


async def merge_all(context: MergeContext) -> PlannedMove:
    """Merge and verify the job's branches in the object store.

    Return the move of the target to the merged commit. The caller applies the move.

    Raises:
        CallerError: The target is gone, busy, or fails verify without any of the branches.
    """
    job = context.job
    if context.verify:
        await check_free(context.common_dir, job.target)
    agents = await context.services.store.agents.get_all(job.agents)
    refs = [f"refs/heads/{agent.worktree.branch}" for agent in agents if agent.worktree.prepared]
    tips = await find_tips(context.common_dir, [job.target, *refs])
    if job.target not in tips:
        raise CallerError(f"The branch {short_name(job.target)} no longer exists; name another one in `into`.")
    start = tips[job.target]
    signature = await make_signature(context.common_dir, job.created)
    train = _MergeTrain(context, ScratchVerifier(context), start, signature)
    await train.run(await find_eligible_branches(context, agents, start, tips))
    await train.add_hunks()
    return _plan_move(context, train, agents, await _note_changed_settings(context, train))


async def _note_changed_settings(context: MergeContext, train: "_MergeTrain") -> str | None:
    """Return a note if the merge changes forkjoin.toml, else `None`.

    This file names commands that forkjoin runs.
    """
    arguments = ("diff-tree", "--quiet", train.start.commit, train.head.commit, "--", "forkjoin.toml")
    changed, _, _ = await git.run(context.common_dir, *arguments, ok_codes=(0, 1))
    return _CHANGES_SETTINGS if changed else None


def _plan_move(context: MergeContext, train: "_MergeTrain", agents: Sequence[Agent], note: str | None) -> PlannedMove:
    job = context.job
    merged = {one.id: one for car in train.cars for one in _merged_branches(car, dry_run=job.dry_run)}
    failures = [train.failures[one.number] for one in agents if one.number in train.failures and one.id not in merged]
    report = MergeReport(
        target=short_name(job.target),
        commit=None if job.dry_run else train.head.commit,
        merged=tuple(merged.values()),
        conflicted=tuple(one for one in failures if isinstance(one, ConflictedBranch)),
        rejected=tuple(one for one in failures if isinstance(one, RejectedBranch)),
        skipped=tuple(one for one in failures if isinstance(one, SkippedBranch)),
        note=note,
    )
    why = f"forkjoin: merge {', '.join(merged)}"
    return PlannedMove(move_target.TargetMove(job.target, train.start.commit, train.head.commit, None, why), report)


@dataclass(frozen=True, slots=True)
class _Car:
    """A branch on the train, and its merge commit."""

    entry: EligibleBranch
    head: Tip


def _merged_branches(car: _Car, *, dry_run: bool) -> Iterator[MergedBranch]:
    """Yield the branches that are merged with a car.

    These are the branch of the car's agent, and those of the agents whose conflicts that agent resolves.
    """
    for number, tip in {car.entry.agent.number: car.entry.branch.tip.commit, **car.entry.resolved}.items():
        yield MergedBranch(f"a{number}") if dry_run else MergedBranch(f"a{number}", car.head.commit, tip)


@dataclass(slots=True)
class _MergeTrain:
    """The branches that are merged so far, each a car of the train, and why other branches are left out."""

    context: MergeContext
    scratch: ScratchVerifier
    start: Tip  #: the target
    signature: Signature
    cars: list[_Car] = field(default_factory=list[_Car])
    verified: int = 0  #: how many cars, from the first, have passed verify together
    #: Why branches are left out, by agent number.
    failures: dict[int, ConflictedBranch | RejectedBranch | SkippedBranch] = field(
        default_factory=dict[int, "ConflictedBranch | RejectedBranch | SkippedBranch"]
    )
    conflicts: dict[int, BranchConflict] = field(
        default_factory=dict[int, BranchConflict]
    )  #: the last conflict of each branch, by agent number

    @property
    def head(self) -> Tip:
        return self._head_of(len(self.cars))

    def _head_of(self, length: int) -> Tip:
        return self.cars[length - 1].head if length else self.start

    async def run(self, branches: Sequence[EligibleBranch | SkippedBranch]) -> None:
        """Merge the eligible branches that don't conflict and pass verify.

        Malformed branches are not merged. Record in `failures` why a branch is left out. A resolver that is left out
        leaves out its agent too.
        """
        self.failures |= {int(one.id[1:]): one for one in branches if isinstance(one, SkippedBranch)}
        eligible = [one for one in branches if isinstance(one, EligibleBranch)]
        await self._merge_in_batches(await self._reject_malformed(eligible))
        for entry in eligible:
            if failure := self.failures.get(entry.agent.number):
                self.failures |= {number: _skip_with(failure, entry.agent, number) for number in entry.resolved}

    async def _merge_in_batches(self, waiting: list[EligibleBranch]) -> None:
        """Merge and verify batch after batch. The first batch is the whole list.

        Once two batches have failed verify, each further failure halves the size of the next batch, and each success
        doubles it. Branches that conflict with their batch are tried again after all batches.
        """
        retry_last: list[EligibleBranch] = []
        batch_size, failed_batches = len(waiting), 0
        while waiting:
            unmerged = await self._append(await self._append(waiting[:batch_size]))
            uncoupled = await self._reject_what_breaks_verify()
            failed_batches += uncoupled is not None
            rest = waiting[batch_size:]
            if uncoupled is not None:
                waiting = [*uncoupled, *unmerged, *rest]
            elif rest:
                retry_last, waiting = [*retry_last, *unmerged], rest
            else:
                retry_last, waiting = [], retry_last
            if failed_batches >= _FAILURES_BEFORE_SMALLER_BATCHES:
                batch_size = batch_size * 2 if uncoupled is None else max(1, batch_size // 2)

    async def _reject_malformed(self, entries: Sequence[EligibleBranch]) -> list[EligibleBranch]:
        """Reject the branches whose new objects git fsck refuses. Return the others."""
        squash = self.context.job.strategy == "squash"
        objects = {entry: entry.branch.tip.tree if squash else entry.branch.tip.commit for entry in entries}
        aside = self.context.services.home.aside
        errors = await find_malformed(self.context.common_dir, self.start.commit, list(objects.values()), aside)
        for entry, name in objects.items():
            if name in errors:
                why = f"git fsck --strict refuses its objects: {errors[name]}"
                self.failures[entry.agent.number] = RejectedBranch(entry.agent.id, why[:_ERROR_CHARS])
        return [entry for entry, name in objects.items() if name not in errors]

    async def add_hunks(self) -> None:
        """Add to each conflicted branch the first hunks that conflict in its files."""
        for number, failure in self.failures.items():
            if isinstance(failure, ConflictedBranch):
                conflict = self.conflicts[number]
                hunks = await find_hunks(self.context.common_dir, conflict.tree, conflict.files)
                self.failures[number] = replace(failure, hunks=tuple(hunks))

    async def _append(self, entries: Sequence[EligibleBranch]) -> list[EligibleBranch]:
        """Merge branches onto the train.

        Return the branches that conflicted, or whose dependencies did. They may merge once other branches have left or
        joined the train.
        """
        ready: list[EligibleBranch] = []
        for entry in entries:  # one by one, because a branch may need the branches that are ready before it
            if not self._skip_without_dependencies(entry, ready):
                ready.append(entry)
        branches = [entry.branch for entry in ready]
        squash = self.context.job.strategy == "squash"
        outcomes = await merge_branches_in_order(
            self.context.common_dir, self.head, branches, self.signature, squash=squash
        )
        if skipped := await self._save_submodule_commits(ready, outcomes):
            self.failures |= skipped
            return await self._append([entry for entry in ready if entry.agent.number not in skipped])
        return [entry for entry, outcome in zip(ready, outcomes, strict=True) if self._record(entry, outcome)]

    async def _save_submodule_commits(
        self, entries: Sequence[EligibleBranch], outcomes: Sequence[MergeOutcome]
    ) -> dict[int, SkippedBranch]:
        """Copy the submodule commits of merged branches to the user's submodules.

        Return the branches for which that fails, by agent number, as skipped branches. A dry run only checks whether
        the commits could be copied.
        """
        skipped: dict[int, SkippedBranch] = {}
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, MergeCommit) and outcome.submodules:
                common_dir, job = self.context.common_dir, self.context.job
                where = None if job.dry_run else await find_checkout(common_dir, job.target)
                options = SaveOptions(entry.agent.slug, job.dry_run, where)
                if why := await save_submodule_commits(common_dir, outcome.head.commit, outcome.submodules, options):
                    reason = SkipReason.SUBMODULE_COMMITS_UNSAVED
                    skipped[entry.agent.number] = skip(entry.agent.id, reason, why)
        return skipped

    def _skip_without_dependencies(self, entry: EligibleBranch, ready: Sequence[EligibleBranch]) -> bool:
        """Return whether the branch lacks a branch that it needs. Record the reason.

        A branch is not missing if it is on the train or in `ready`, or if the target already contains it.
        """
        present = {one.agent.number for one in (*(car.entry for car in self.cars), *ready)}
        missing = sorted(entry.branch.needs - present - self._already_merged())
        if missing:
            self.failures[entry.agent.number] = _skip_without(entry, missing[0])
        return bool(missing)

    def _already_merged(self) -> set[int]:
        return {number for number, failure in self.failures.items() if _is_already_merged(failure)}

    def _record(self, entry: EligibleBranch, outcome: MergeOutcome) -> bool:
        """Record the outcome of a branch's merge.

        Return whether another try of this job may succeed.
        """
        agent = entry.agent
        self.failures.pop(agent.number, None)
        match outcome:
            case MergeCommit(head):
                self.cars.append(_Car(entry, head))
            case AlreadyContained():
                self.failures[agent.number] = skip(agent.id, SkipReason.ALREADY_MERGED)
            case RefusedByGit(why):
                self.failures[agent.number] = RejectedBranch(agent.id, f"git can't merge it: {why}")
            case BranchConflict(files):
                self.failures[agent.number] = ConflictedBranch(agent.id, limit_names(files))
                self.conflicts[agent.number] = outcome
                return True
            case MissingDependency():
                self.failures[agent.number] = _skip_without(entry, min(entry.branch.needs))
                return True
        return False

    async def _reject_what_breaks_verify(self) -> list[EligibleBranch] | None:
        """Verify the new cars, and reject the branch of the first that breaks verify.

        Returns:
            The branches after the rejected branch, which have left the train with it. `None` if verify passes.

        Raises:
            CallerError: verify fails on the target itself.
        """
        length = len(self.cars) - self.verified
        try:
            self.verified += await longest_passing(length, self._passes) if length else 0
        except BrokenBeforeError:
            raise CallerError(
                f"verify fails on {self.context.target_name} itself, without any of these branches, so nothing was "
                f"merged. Fix that first, then merge again. {await self._verify(0)}"
            ) from None
        if self.verified == len(self.cars):
            return None
        broken, *after = self.cars[self.verified :]
        self.failures[broken.entry.agent.number] = RejectedBranch(broken.entry.agent.id, await self._verify(1))
        del self.cars[self.verified :]
        return [car.entry for car in after]

    async def _passes(self, length: int) -> bool:
        return not await self._verify(length)

    async def _verify(self, length: int) -> str:
        """Run verify on the verified cars together with the next `length` cars.

        Return why verify fails, or an empty string if it passes. The result for a commit is recorded, so that verify
        runs only once for each commit of a job.
        """
        if self.context.verify is None or (length == 0 and self.verified):
            return ""
        length += self.verified
        agents = [car.entry.agent for car in self.cars[:length]]
        return await self.scratch.verify(agents, self._head_of(length).commit, self.context.verify)


def _is_already_merged(failure: ConflictedBranch | RejectedBranch | SkippedBranch) -> bool:
    return isinstance(failure, SkippedBranch) and failure.reason is SkipReason.ALREADY_MERGED


def _skip_with(
    failure: ConflictedBranch | RejectedBranch | SkippedBranch, resolver: Agent, number: int
) -> SkippedBranch:
    """Skip the agent `number`, because the resolver of its conflict is not merged."""
    if isinstance(failure, SkippedBranch) and _is_already_merged(failure):
        return replace(failure, id=f"a{number}")
    return skip(f"a{number}", SkipReason.RESOLVER_NOT_MERGED, resolver.label)


def _skip_without(entry: EligibleBranch, dependency: int) -> SkippedBranch:
    return skip(entry.agent.id, SkipReason.BASE_AGENT_NOT_MERGED, f"a{dependency}")
