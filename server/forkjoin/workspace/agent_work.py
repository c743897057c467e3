"""An agent's work, according to its repository and its records.

What counts is the commit that its result names: that is what was verified, and what a lead is shown. Where its branch
was moved since, by anybody but forkjoin, what the branch has by now is not the agent's work until a caller takes it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from forkjoin.core.model import Agent, Verify
from forkjoin.git import diff, repository
from forkjoin.git.refs import find_tip
from forkjoin.git.worktrees import autocommit
from forkjoin.store.store import Store

_COMMITS_NAMED = 50
#: Hexadecimal digits of a commit that are told.
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class BranchMove:
    """A branch that is not where its agent's last attempt left it."""

    agent: Agent
    old: str | None  #: where the result says it is; none where the branch was gone then
    new: str

    @property
    def name(self) -> str:
        """What a caller names to take the branch as it is now."""
        return f"{self.agent.id}@{self.new[:_DIGITS]}"

    def __str__(self) -> str:
        before = f"from {self.old[:_DIGITS]}" if self.old else "from nothing"
        return f"its branch moved {before} to {self.new[:_DIGITS]} since its end"


async def find_result_commit(store: Store, agent: Agent) -> str | None:
    """The commit at which its last attempt that has ended left its branch; none where there was none."""
    result = await store.results.get(agent.number)
    return result.commit if result else None


async def find_work_end(store: Store, common_dir: str, agent: Agent) -> str | None:
    """Return the final commit of an agent's work, even if its branch moved or is gone."""
    result = await store.results.get(agent.number)
    return result.commit if result else await find_tip(common_dir, agent.ref)


async def find_branch_move(store: Store, common_dir: str, agent: Agent) -> BranchMove | None:
    """Return how an agent's branch moved since its end, or `None` if it didn't."""
    tip = await find_tip(common_dir, agent.ref) if agent.worktree.prepared else None
    last = await find_result_commit(store, agent)
    return None if tip in (None, last) else BranchMove(agent, last, tip)


async def measure_work(common_dir: str, agent: Agent, tip: str | None) -> dict[str, Any]:
    """What is on an agent's branch, as a result tells it."""
    at = tip or agent.worktree.base
    commits = await repository.list_commits(common_dir, agent.worktree.base, at, _COMMITS_NAMED)
    return {"commit": tip, "commits": tuple(commits), **asdict(await diff.measure(common_dir, agent.worktree.base, at))}


async def accept_commit(store: Store, common_dir: str, agent: Agent, tip: str, why: str) -> None:
    """Record `tip` as an ended agent's work. The agent's verify has not seen it."""
    result = await store.results.get(agent.number)
    if result is None or result.commit == tip:
        return
    work: Mapping[str, Any] = await measure_work(common_dir, agent, tip)
    warnings = (*result.warnings, why)
    now = replace(result, **work, verify=Verify.NONE, verify_output="", warnings=warnings)
    await store.results.replace(agent, now)


async def commit_uncommitted(store: Store, common_dir: str, agent: Agent, message: str) -> autocommit.Left:
    """Commit the worktree's uncommitted files, except those that setup wrote."""
    set_up = await store.baselines.setup_files(agent)
    return await autocommit.commit_loose(
        common_dir, Path(agent.worktree.path), agent.worktree.branch, message, agent.slug, set_up=set_up
    )


async def is_worktree_at(
    store: Store, common_dir: str, agent: Agent, commit: str | None, *, or_less: bool = False
) -> bool:
    """Return whether the worktree has only this commit, ignored and setup's files."""
    set_up = await store.baselines.setup_files(agent)
    return await autocommit.is_at(common_dir, Path(agent.worktree.path), commit, or_less=or_less, set_up=set_up)
