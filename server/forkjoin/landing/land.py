"""Carrying out a landing: merge branch after branch in the object store, verify each, then move the target once.

Merge commits are made of recorded facts alone, their dates included, so that a daemon that takes over makes the very
same ones and finds the very same runs of verify. What is to be moved is recorded before the first file is touched.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forkjoin.attempt.environment import compose
from forkjoin.attempt.verify import run_verify
from forkjoin.branch import conflict, git, join, worktree
from forkjoin.branch.checkout import TargetMovedError, check_free, find_checkout, hold
from forkjoin.branch.obstacle import find_obstacles
from forkjoin.error import CallerError, GitError, is_passing, words_of
from forkjoin.landing.answer import (
    INTENT,
    LANDED,
    MERGED_BEFORE,
    NOTHING,
    Conflicted,
    Intent,
    Landed,
    Merged,
    Rejected,
    Skipped,
)
from forkjoin.model import FINAL, Agent, Landing, LandingState, Merge, State
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)

#: How often a landing begins again because somebody else moved its target meanwhile.
_TRIES = 10
_WORDS = 2_000
#: How many files are named in an answer before the rest is only counted.
_FILES_NAMED = 30


@dataclass(frozen=True, slots=True)
class _Order:
    """A landing, where it takes place, and the environment of whoever asked for it."""

    landing: Landing
    common_dir: str
    environment: Mapping[str, str]


class Lander:
    """What it takes to carry out landings."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._store = rooms.store

    async def land(self, landing: Landing, environment: Mapping[str, str]) -> None:
        """Carry a landing to its end; its answer is recorded, whatever that is."""
        order = _Order(landing, (await self._store.project_numbered(landing.project)).common_dir, environment)
        try:
            landed = await self._attempt(order)
        except Exception as error:
            if is_passing(error):
                raise
            if not isinstance(error, CallerError):
                log.exception("landing %d", landing.number)
            landed = Landed(git.short(landing.target), None, error=words_of(error))
        await self._clear_scratch(order)
        await self._record(landing, landed)

    def _scratch(self, landing: Landing) -> Path:
        return self._rooms.home.worktrees / f"landing-{landing.number}"

    async def _clear_scratch(self, order: _Order) -> None:
        try:
            await worktree.remove(order.common_dir, self._scratch(order.landing))
        except OSError:  # whoever waits for the answer gets it all the same
            log.exception("landing %d: its scratch worktree stays", order.landing.number)

    async def _record(self, landing: Landing, landed: Landed) -> None:
        """Write the answer; branches that it says nothing of may be merged another time."""
        merges: dict[int, Merge] = {}
        if not landing.dry_run:
            agents = [await self._store.agent(number) for number in landing.agents]
            waiting = (agent.number for agent in agents if agent.merge is Merge.QUEUED)
            merges = {**dict.fromkeys(waiting, Merge.UNMERGED), **landed.merges()}
        answer = LANDED.dump_json(landed).decode()
        await self._store.set_landing(landing, LandingState.DONE, answer=answer, merges=merges)

    async def _attempt(self, order: _Order) -> Landed:
        if order.landing.state is LandingState.MOVING and (landed := await self._move_on(order)):
            return landed
        for _ in range(_TRIES):
            intent = await self._merge_all(order)
            if order.landing.dry_run or intent.move.new == intent.move.old:
                return intent.landed
            try:
                await self._move(order, intent)
                return intent.landed
            except TargetMovedError:
                continue
        raise CallerError(f"{git.short(order.landing.target)} kept moving while it was merged into; try again.")

    async def _move_on(self, order: _Order) -> Landed | None:
        """Finish a move that a daemon had begun; none if the target moved while no daemon was there."""
        assert order.landing.move is not None
        intent = INTENT.validate_json(order.landing.move)
        try:
            async with hold(order.common_dir, intent.move.checkout, intent.move.ref, self._owner) as held:
                await join.carry_out(order.common_dir, intent.move, held, again=True)
            return intent.landed
        except TargetMovedError:
            return None

    async def _move(self, order: _Order, intent: Intent) -> None:
        """Move the target, and its files where it is checked out by now: verify may have taken long."""
        move = replace(intent.move, checkout=await find_checkout(order.common_dir, order.landing.target))
        async with hold(order.common_dir, move.checkout, move.ref, self._owner) as held:
            if held and (obstacles := await find_obstacles(held, move.old, move.new)):
                raise CallerError(
                    f"These files in {move.checkout} are in the way: {', '.join(_first(obstacles))}. Nothing was "
                    "merged; commit them or move them away, then merge again."
                )
            recorded = INTENT.dump_json(replace(intent, move=move)).decode()
            await self._store.set_landing(order.landing, LandingState.MOVING, move=recorded)
            await join.carry_out(order.common_dir, move, held)

    @property
    def _owner(self) -> str:
        return f"forkjoin {self._rooms.home.worktrees}"

    async def _merge_all(self, order: _Order) -> Intent:
        """Merge what can be merged onto the target as it is now, in the object store alone."""
        landing = order.landing
        if landing.verify and not landing.dry_run:
            await check_free(order.common_dir, landing.target)
        agents = [await self._store.agent(number) for number in landing.agents]
        refs = {agent.number: f"refs/heads/{agent.branch}" for agent in agents if agent.prepared}
        tips = await git.tips(order.common_dir, [landing.target, *refs.values()])
        if landing.target not in tips:
            raise CallerError(f"There is no branch {git.short(landing.target)} any more.")
        old = tips[landing.target]
        dates = {f"GIT_{role}_DATE": f"{int(landing.created)} +0000" for role in ("AUTHOR", "COMMITTER")}
        authorship = await git.author(order.common_dir) | dates
        train = _Train(old.commit, old.tree, Landed(git.short(landing.target), None), authorship)
        for agent in agents:
            tip = tips.get(refs.get(agent.number, ""))
            await self._couple(train, order, agent, tip.commit if tip else None)
        landed = train.landed if landing.dry_run else replace(train.landed, commit=train.head)
        why = f"forkjoin: merge {', '.join(merged.id for merged in landed.merged)}"
        return Intent(join.Move(landing.target, old.commit, train.head, None, why), landed)

    async def _couple(self, train: "_Train", order: _Order, agent: Agent, tip: str | None) -> None:
        """Put one branch on the train, or say why not."""
        if why := await self._why_not(order, agent, tip, train.head):
            train.note(skipped=Skipped(agent.id, why))
            return
        assert tip is not None
        try:
            merged = await conflict.try_merge(order.common_dir, train.head, tip)
        except GitError as error:
            train.note(rejected=Rejected(agent.id, f"git can't merge it: {error.last_line}"))
            return
        if merged.conflicts:
            train.note(conflicted=Conflicted(agent.id, tuple(_first(merged.conflicts))))
        elif merged.tree == train.tree and await git.is_ancestor(order.common_dir, tip, train.head):
            train.note(skipped=Skipped(agent.id, MERGED_BEFORE))
        else:
            await self._add(train, order, agent, tip, merged.tree)

    async def _add(self, train: "_Train", order: _Order, agent: Agent, tip: str, tree: str) -> None:
        """Make the merge commit, and let the train go on from it unless verify fails there."""
        parents = (train.head, tip)
        message = _message(agent, await self._store.task(agent.number))
        commit = await join.merge_commit(order.common_dir, tree, parents, message, train.authorship)
        verify = None if order.landing.dry_run else order.landing.verify
        if verify and (why := await self._verify(order, agent, commit, verify)):
            train.note(rejected=Rejected(agent.id, why))
            return
        train.head, train.tree = commit, tree
        train.note(merged=Merged(agent.id, None if order.landing.dry_run else commit))

    async def _why_not(self, order: _Order, agent: Agent, tip: str | None, head: str) -> str | None:
        """Why an agent's branch is not even tried, if there is a reason."""
        if agent.state not in FINAL:
            return f"not ended yet (it is {agent.state}); wait for it with wait_agents"
        if agent.state is not State.SUCCEEDED:
            return f"it did not succeed (it is {agent.state}); see get_result"
        if tip == agent.base:
            return NOTHING
        return None if tip else await self._why_gone(order, agent, head)

    async def _why_gone(self, order: _Order, agent: Agent, head: str) -> str:
        result = await self._store.result(agent.number)
        if result and result.commit and await git.is_ancestor(order.common_dir, result.commit, head):
            return NOTHING if result.commit == agent.base else MERGED_BEFORE
        return "its branch is gone"

    async def _verify(self, order: _Order, agent: Agent, commit: str, command: str) -> str | None:
        """Run verify on exactly this commit, in the scratch worktree; why it failed, if it did."""
        scratch = self._scratch(order.landing)
        await worktree.make_scratch(order.common_dir, scratch, commit)
        handle = f"l{order.landing.number}-{agent.id}-{commit[:12]}"
        target = git.short(order.landing.target)
        ours = {"FORKJOIN_AGENT": agent.id, "FORKJOIN_NAME": agent.name, "FORKJOIN_TARGET": target}
        environment = compose(order.environment, {}, ours)
        minutes = self._rooms.settings.limits.verify_minutes
        outcome, printed = await run_verify(self._rooms.executor, handle, command, str(scratch), environment, minutes)
        await self._rooms.executor.forget(handle)
        return None if outcome.ok else f"verify: {outcome}\n{printed[-_WORDS:]}".strip()


@dataclass(slots=True)
class _Train:
    """Branches coupled so far: the commit that has them all, its tree, and how each has fared."""

    head: str
    tree: str
    landed: Landed
    authorship: Mapping[str, str]

    def note(
        self,
        *,
        merged: Merged | None = None,
        conflicted: Conflicted | None = None,
        rejected: Rejected | None = None,
        skipped: Skipped | None = None,
    ) -> None:
        landed = self.landed
        self.landed = replace(
            landed,
            merged=(*landed.merged, *([merged] if merged else [])),
            conflicted=(*landed.conflicted, *([conflicted] if conflicted else [])),
            rejected=(*landed.rejected, *([rejected] if rejected else [])),
            skipped=(*landed.skipped, *([skipped] if skipped else [])),
        )


def _first(names: Sequence[str]) -> list[str]:
    more = [f"… and {len(names) - _FILES_NAMED} more"] if len(names) > _FILES_NAMED else []
    return [*names[:_FILES_NAMED], *more]


def _message(agent: Agent, task: str) -> str:
    first = " ".join(task.split())[:200]
    return f"Merge {agent.label}\n\n{first}\n\nForkjoin-Agent: {agent.id}\n"
