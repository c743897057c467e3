"""Merging branch after branch in the object store alone, each verified: what a target is to be moved to.

Merge commits are made of recorded facts alone, their dates included, so that a daemon that takes over makes the very
same ones and finds the very same runs of verify.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forkjoin.branch import conflict, git, join
from forkjoin.branch.checkout import check_free
from forkjoin.error import CallerError, GitError, is_passing
from forkjoin.landing.answer import MERGED_BEFORE, NOTHING, Conflicted, Intent, Landed, Merged, Rejected, Skipped
from forkjoin.landing.order import Order
from forkjoin.landing.scratch import Scratch
from forkjoin.model import FINAL, Agent, State

#: How many files are named in an answer before the rest is only counted.
_FILES_NAMED = 30


async def merge_all(order: Order, scratch: Scratch) -> Intent:
    """Merge what can be merged onto the target as it is now."""
    landing = order.landing
    if order.verify:
        await check_free(order.common_dir, landing.target)
    agents = await order.rooms.store.agents_numbered(landing.agents)
    refs = {agent.number: f"refs/heads/{agent.branch}" for agent in agents if agent.prepared}
    tips = await git.tips(order.common_dir, [landing.target, *refs.values()])
    if landing.target not in tips:
        raise CallerError(f"There is no branch {git.short(landing.target)} any more.")
    old = tips[landing.target]
    dates = {f"GIT_{role}_DATE": f"{int(landing.created)} +0000" for role in ("AUTHOR", "COMMITTER")}
    authorship = await git.author(order.common_dir) | dates
    train = _Train(order, scratch, authorship, old.commit, old.tree)
    for agent in agents:
        tip = tips.get(refs.get(agent.number, ""))
        await train.couple(agent, tip.commit if tip else None)
    landed = Landed(
        git.short(landing.target),
        None if landing.dry_run else train.head,
        tuple(train.merged),
        tuple(train.conflicted),
        tuple(train.rejected),
        tuple(train.skipped),
    )
    why = f"forkjoin: merge {', '.join(merged.id for merged in train.merged)}"
    return Intent(join.Move(landing.target, old.commit, train.head, None, why), landed)


@dataclass(slots=True)
class _Train:
    """Branches coupled so far: the commit that has them all, its tree, and how each has fared."""

    order: Order
    scratch: Scratch
    authorship: Mapping[str, str]
    head: str
    tree: str
    merged: list[Merged] = field(default_factory=list[Merged])
    conflicted: list[Conflicted] = field(default_factory=list[Conflicted])
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    skipped: list[Skipped] = field(default_factory=list[Skipped])

    async def couple(self, agent: Agent, tip: str | None) -> None:
        """Put one branch on the train, or say why not."""
        if why := await self._why_not(agent, tip):
            self.skipped.append(Skipped(agent.id, why))
            return
        assert tip is not None
        try:
            merged = await conflict.try_merge(self.order.common_dir, self.head, tip)
        except GitError as error:
            if is_passing(error):
                raise
            self.rejected.append(Rejected(agent.id, f"git can't merge it: {error.last_line}"))
            return
        if merged.conflicts:
            self.conflicted.append(Conflicted(agent.id, tuple(first(merged.conflicts))))
        elif merged.tree == self.tree and await git.is_ancestor(self.order.common_dir, tip, self.head):
            self.skipped.append(Skipped(agent.id, MERGED_BEFORE))
        else:
            await self._add(agent, tip, merged.tree)

    async def _add(self, agent: Agent, tip: str, tree: str) -> None:
        """Make the merge commit, and let the train go on from it unless verify fails there."""
        parents = (self.head, tip)
        message = _message(agent, await self.order.rooms.store.task(agent.number))
        commit = await join.merge_commit(self.order.common_dir, tree, parents, message, self.authorship)
        if self.order.verify and (why := await self.scratch.verify(agent, commit, self.order.verify)):
            self.rejected.append(Rejected(agent.id, why))
            return
        self.head, self.tree = commit, tree
        self.merged.append(Merged(agent.id, None if self.order.landing.dry_run else commit))

    async def _why_not(self, agent: Agent, tip: str | None) -> str | None:
        """Why an agent's branch is not even tried, if there is a reason."""
        if agent.state not in FINAL:
            return f"not ended yet (it is {agent.state}); wait for it with wait_agents"
        if agent.state is not State.SUCCEEDED:
            return f"it did not succeed (it is {agent.state}); see get_result"
        if tip == agent.base:
            return NOTHING
        return None if tip else await self._why_gone(agent)

    async def _why_gone(self, agent: Agent) -> str:
        result = await self.order.rooms.store.result(agent.number)
        try:
            if result and result.commit and await git.is_ancestor(self.order.common_dir, result.commit, self.head):
                return NOTHING if result.commit == agent.base else MERGED_BEFORE
        except GitError as error:  # the commit went with the branch
            if is_passing(error):
                raise
        return "its branch is gone"


def first(names: Sequence[str]) -> list[str]:
    """The first of these names, and how many more there are."""
    more = [f"… and {len(names) - _FILES_NAMED} more"] if len(names) > _FILES_NAMED else []
    return [*names[:_FILES_NAMED], *more]


def _message(agent: Agent, task: str) -> str:
    text = " ".join(task.split())[:200]
    return f"Merge {agent.label}\n\n{text}\n\nForkjoin-Agent: {agent.id}\n"
