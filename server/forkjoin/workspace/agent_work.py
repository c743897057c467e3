"""An agent's work, according to its repository and its records.

The commit in an agent's result counts: it was verified, and the lead sees it. If somebody other than forkjoin moved the
branch since, the new commits are not the agent's work until a caller accepts them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from forkjoin.core.model import Agent
from forkjoin.core.result import Verify
from forkjoin.git import diff, repository
from forkjoin.git.refs import find_tip
from forkjoin.git.worktrees import autocommit
from forkjoin.store.store import Store

#: The number of commits that a result lists.
_COMMITS_NAMED = 50
#: The number of hexadecimal digits of a commit that are shown.
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class BranchMove:
    """A move of an agent's branch since the agent's end."""

    agent: Agent
    old: str | None  #: the commit in the result; `None` if the branch was gone then
    new: str

    @property
    def name(self) -> str:
        """Return the name by which a caller accepts the branch in its new position."""
        return f"{self.agent.id}@{self.new[:_DIGITS]}"

    def __str__(self) -> str:
        before = f"from {self.old[:_DIGITS]} " if self.old else ""
        return f"its branch moved {before}to {self.new[:_DIGITS]} since its end"


async def find_result_commit(store: Store, agent: Agent) -> str | None:
    """Return the commit in the agent's result, or `None` if it has none."""
    result = await store.results.get(agent.number)
    return result.commit if result else None


async def find_work_end(store: Store, common_dir: str, agent: Agent) -> str | None:
    """Return the last commit of the agent's work, or `None` if it has none.

    This is the commit in the agent's result or, before its end, the tip of its branch.
    """
    result = await store.results.get(agent.number)
    return result.commit if result else await find_tip(common_dir, agent.ref)


async def find_branch_move(store: Store, common_dir: str, agent: Agent) -> BranchMove | None:
    """Return how an agent's branch moved since its end, or `None` if it didn't."""
    tip = await find_tip(common_dir, agent.ref) if agent.worktree.prepared else None
    last = await find_result_commit(store, agent)
    return None if tip in (None, last) else BranchMove(agent, last, tip)


async def measure_work(common_dir: str, agent: Agent, tip: str | None) -> dict[str, Any]:
    """Return a result's fields about commits and changed lines of a branch."""
    at = tip or agent.worktree.base
    commits = await repository.list_commits(common_dir, agent.worktree.base, at, _COMMITS_NAMED)
    return {
        "commit": tip,
        "commits": tuple(commits),
        **asdict(await diff.measure_diff(common_dir, agent.worktree.base, at)),
    }


async def accept_commit(store: Store, common_dir: str, agent: Agent, tip: str, why: str) -> None:
    """Record a commit as an ended agent's work. The agent's verify has not seen it.

    Args:
        why: A warning for the result.
    """
    result = await store.results.get(agent.number)
    if result is None or result.commit == tip:
        return
    work: Mapping[str, Any] = await measure_work(common_dir, agent, tip)
    warnings = (*result.warnings, why)
    now = replace(result, **work, verify=Verify.NONE, verify_output="", warnings=warnings)
    await store.results.replace(agent, now)


async def commit_uncommitted(store: Store, common_dir: str, agent: Agent, message: str) -> autocommit.AutocommitResult:
    """Commit the worktree's uncommitted files, except those that setup wrote."""
    set_up = await store.baselines.setup_files(agent)
    return await autocommit.commit_uncommitted_work(
        common_dir, Path(agent.worktree.path), agent.worktree.branch, message, agent.slug, set_up=set_up
    )


async def is_worktree_at(
    store: Store, common_dir: str, agent: Agent, commit: str | None, *, or_less: bool = False
) -> bool:
    """Return whether the worktree is unchanged since a commit.

    Ignored files and files that setup wrote don't count.

    Args:
        or_less: Whether files of the commit may be missing.
    """
    set_up = await store.baselines.setup_files(agent)
    return await autocommit.is_clean_at(common_dir, Path(agent.worktree.path), commit, or_less=or_less, set_up=set_up)
