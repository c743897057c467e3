"""Carrying out a landing: merge branch after branch in the object store, verify each, then move the target once.

Merge commits are made of recorded facts alone, their dates included, so that a daemon that takes over makes the very
same ones and finds the very same runs of verify. What is to be moved is recorded before the first file is touched.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from forkjoin.attempt.environment import compose
from forkjoin.attempt.executor import AttemptSpec, Executor
from forkjoin.branch import conflict, git, join, worktree
from forkjoin.config import Settings
from forkjoin.error import CallerError, ForkjoinError
from forkjoin.landing.answer import INTENT, LANDED, Conflicted, Intent, Landed, Merged, Rejected, Skipped
from forkjoin.model import FINAL, Agent, Landing, LandingState, Merge, State
from forkjoin.record.store import Store

log = logging.getLogger(__name__)

#: How often a landing begins again because somebody else moved its target meanwhile.
_TRIES = 10
_WORDS = 2_000


class Lander:
    """What it takes to carry out landings."""

    def __init__(self, store: Store, executor: Executor, settings: Settings, worktrees: Path) -> None:
        self._store = store
        self._executor = executor
        self._settings = settings
        self._worktrees = worktrees

    async def land(self, landing: Landing, lead: Mapping[str, str]) -> None:
        """Carry a landing to its end; its answer is recorded, whatever that is."""
        project = await self._store.project_numbered(landing.project)
        before = {n: (await self._store.agent(n)) for n in landing.agents}
        try:
            landed = await self._attempt(landing, project.common_dir, lead)
        except Exception as error:
            if not isinstance(error, CallerError):
                log.exception("landing %d", landing.number)
            words = str(error) if isinstance(error, ForkjoinError) else f"{type(error).__name__}: {error}"
            landed = Landed(_short(landing.target), None, error=words)
        await self._record(landing, landed, before)

    async def _record(self, landing: Landing, landed: Landed, before: Mapping[int, Agent]) -> None:
        """Write the answer; branches that it says nothing of fare as they did before."""
        merges: dict[int, Merge] = {}
        if not landing.dry_run:
            waiting = (number for number, agent in before.items() if agent.merge is Merge.QUEUED)
            merges = {**dict.fromkeys(waiting, Merge.UNMERGED), **landed.merges()}
        answer = LANDED.dump_json(landed).decode()
        await self._store.set_landing(landing, LandingState.DONE, answer=answer, merges=merges)

    async def _attempt(self, landing: Landing, common_dir: str, lead: Mapping[str, str]) -> Landed:
        if landing.state is LandingState.MOVING:
            assert landing.move is not None
            intent = INTENT.validate_json(landing.move)
            try:
                await join.carry_out(common_dir, intent.move)
                return intent.landed
            except join.TargetMovedError:
                pass  # the target moved while no daemon was there: begin again
        for _ in range(_TRIES):
            intent = await self._merge_all(landing, common_dir, lead)
            if landing.dry_run or intent.move.new == intent.move.old:
                return intent.landed
            try:
                await self._move(landing, common_dir, intent)
                return intent.landed
            except join.TargetMovedError:
                continue
        raise CallerError(f"{_short(landing.target)} kept moving while it was merged into; try again.")

    async def _move(self, landing: Landing, common_dir: str, intent: Intent) -> None:
        move = intent.move
        if move.checkout is not None:
            await join.check_free(move.checkout)
            if obstacles := await join.find_obstacles(move):
                raise CallerError(
                    f"These files in {move.checkout} are in the way: {', '.join(obstacles[:20])}. Nothing was merged; "
                    "commit them or move them away, then merge again."
                )
        await self._store.set_landing(landing, LandingState.MOVING, move=INTENT.dump_json(intent).decode())
        await join.carry_out(common_dir, move)

    async def _merge_all(self, landing: Landing, common_dir: str, lead: Mapping[str, str]) -> Intent:
        """Merge what can be merged onto the target as it is now, in the object store alone."""
        old = await git.tip(common_dir, landing.target)
        if old is None:
            raise CallerError(f"There is no branch {_short(landing.target)} any more.")
        checkout = await join.find_checkout(common_dir, landing.target)
        dates = {f"GIT_{role}_DATE": f"{int(landing.created)} +0000" for role in ("AUTHOR", "COMMITTER")}
        train = _Train(old, Landed(_short(landing.target), None), await git.author(common_dir) | dates)
        scratch = self._worktrees / f"landing-{landing.number}"
        for number in landing.agents:
            agent = await self._store.agent(number)
            await self._couple(train, landing, agent, common_dir, scratch, lead)
        if scratch.exists():
            await worktree.remove(common_dir, scratch)
        landed = train.landed if landing.dry_run else replace(train.landed, commit=train.head)
        names = ", ".join(merged.id for merged in landed.merged)
        return Intent(join.Move(landing.target, old, train.head, checkout, f"forkjoin: merge {names}"), landed)

    async def _couple(
        self, train: "_Train", landing: Landing, agent: Agent, common_dir: str, scratch: Path, lead: Mapping[str, str]
    ) -> None:
        """Put one branch on the train, or say why not."""
        tip = await git.tip(common_dir, f"refs/heads/{agent.branch}") if agent.prepared else None
        if why := await _why_not(common_dir, agent, tip, train.head):
            train.note(skipped=Skipped(agent.id, why))
            return
        assert tip is not None
        merged = await conflict.try_merge(common_dir, train.head, tip)
        if merged.conflicts:
            train.note(conflicted=Conflicted(agent.id, merged.conflicts))
            return
        commit = await join.merge_commit(common_dir, merged.tree, (train.head, tip), _message(agent), train.authorship)
        if landing.verify and not landing.dry_run:
            if why := await self._verify(landing, agent, common_dir, scratch, commit, lead):
                train.note(rejected=Rejected(agent.id, why))
                return
        train.head = commit
        train.note(merged=Merged(agent.id, None if landing.dry_run else commit))

    async def _verify(
        self, landing: Landing, agent: Agent, common_dir: str, scratch: Path, commit: str, lead: Mapping[str, str]
    ) -> str | None:
        """Run verify on exactly this commit, in the scratch worktree; why it failed, if it did."""
        if scratch.exists():
            await worktree.switch_detached(scratch, commit)
        else:
            await worktree.make_detached(common_dir, scratch, commit)
        handle = f"l{landing.number}-{agent.id}-{commit[:12]}"
        ours = {"FORKJOIN_AGENT": agent.id, "FORKJOIN_NAME": agent.name, "FORKJOIN_TARGET": _short(landing.target)}
        assert landing.verify is not None
        spec = AttemptSpec(
            handle=handle,
            argv=("/bin/sh", "-c", landing.verify),
            cwd=str(scratch),
            environment=compose(lead, {}, ours),
            timeout_s=self._settings.limits.verify_minutes * 60,
            together=True,
        )
        await self._executor.submit(spec)
        outcome = await self._executor.outcome(handle)
        printed, _ = await self._executor.read_output(handle, -_WORDS, _WORDS)
        await self._executor.forget(handle)
        return None if outcome.ok else f"verify: {outcome}\n{printed.decode(errors='replace').strip()}".strip()


@dataclass(slots=True)
class _Train:
    """Branches coupled so far: the commit that has them all, and how each has fared."""

    head: str
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


async def _why_not(common_dir: str, agent: Agent, tip: str | None, head: str) -> str | None:
    """Why an agent's branch is not merged, if there is a reason."""
    if agent.state not in FINAL:
        return f"not ended yet (it is {agent.state}); wait for it with wait_agents"
    if agent.state is not State.SUCCEEDED:
        return f"it {agent.state}; see get_result"
    if tip is None:
        return "its branch is gone"
    if tip == agent.base:
        return "nothing: it has no commits"
    if await git.is_ancestor(common_dir, tip, head):
        return "merged before"
    return None


def _message(agent: Agent) -> str:
    first = " ".join(agent.spec.task.split())[:200]
    return f"Merge {agent.id} ({agent.name})\n\n{first}\n\nForkjoin-Agent: {agent.id}\n"


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/")
