"""The work of an agent: its commits, and the uncommitted files in its worktree.

Once an agent has ended, its work is the commit in its result, which was verified and which the lead has seen. If
somebody other than forkjoin moves the branch afterwards, the new commits count as work only once a caller accepts them.
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

#: The most commits that a result lists.
_COMMITS_NAMED = 50
#: The hexadecimal digits of a commit that are shown.
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class BranchMove:
    """A move of an agent's branch to another commit after the agent's end."""

    agent: Agent
    old: str | None  #: the commit in the agent's result; `None` if the branch had no commit when the agent ended
    new: str  #: the commit to which the branch points now

    @property
    def name(self) -> str:
        """Return the id by which a caller accepts the new commit: a1@0123456789ab."""
        return f"{self.agent.id}@{self.new[:_DIGITS]}"

    def __str__(self) -> str:
        before = f"from {self.old[:_DIGITS]} " if self.old else ""
        return f"its branch moved {before}to {self.new[:_DIGITS]} since its end"


async def find_result_commit(store: Store, agent: Agent) -> str | None:
    """Return the commit in the agent's result.

    Return `None` if there is no result yet, or the result has no commit.
    """
    result = await store.results.get(agent.number)
    return result.commit if result else None


async def find_work_end(store: Store, common_dir: str, agent: Agent) -> str | None:
    """Return the last commit of the agent's work.

    This is the commit in the agent's result. Before the agent has ended, it is the tip of its branch. Return `None` if
    the result has no commit, or there is no branch.
    """
    result = await store.results.get(agent.number)
    return result.commit if result else await find_tip(common_dir, agent.ref)


async def find_branch_move(store: Store, common_dir: str, agent: Agent) -> BranchMove | None:
    """Return how an ended agent's branch has moved since the agent's end.

    Return `None` if it still points to the result's commit, or does not exist.
    """
    tip = await find_tip(common_dir, agent.ref) if agent.worktree.prepared else None
    last = await find_result_commit(store, agent)
    return None if tip in (None, last) else BranchMove(agent, last, tip)


async def measure_work(common_dir: str, agent: Agent, tip: str | None) -> dict[str, Any]:
    """Return the fields of a result that describe the commits and the changed lines.

    Args:
        tip: The last commit of the work; `None` if the agent has none. The first is the one after the agent's base.
    """
    at = tip or agent.worktree.base
    commits = await repository.list_commits(common_dir, agent.worktree.base, at, _COMMITS_NAMED)
    return {
        "commit": tip,
        "commits": tuple(commits),
        **asdict(await diff.measure_diff(common_dir, agent.worktree.base, at)),
    }


async def accept_commit(store: Store, common_dir: str, agent: Agent, tip: str, why: str) -> None:
    """Record a commit as an ended agent's work, unless it is recorded already.

    The result's verify is reset, since it did not run on this commit.

    Args:
        why: A warning that is added to the result.
    """
    result = await store.results.get(agent.number)
    if result is None or result.commit == tip:
        return
    work: Mapping[str, Any] = await measure_work(common_dir, agent, tip)
    warnings = (*result.warnings, why)
    now = replace(result, **work, verify=Verify.NONE, verify_output="", warnings=warnings)
    await store.results.replace(agent, now)


async def commit_uncommitted(store: Store, common_dir: str, agent: Agent, message: str) -> autocommit.AutocommitResult:
    """Commit the uncommitted files of an agent's worktree.

    Files that setup wrote and the agent has not changed are left out.
    """
    set_up = await store.baselines.setup_files(agent)
    return await autocommit.commit_uncommitted_work(
        common_dir, Path(agent.worktree.path), agent.worktree.branch, message, agent.slug, set_up=set_up
    )


async def is_worktree_at(
    store: Store, common_dir: str, agent: Agent, commit: str | None, *, or_less: bool = False
) -> bool:
    """Return whether the worktree contains the files of a commit and no others.

    Ignored files, and files that setup wrote, don't count.

    Args:
        or_less: Whether the result is also `True` if files of the commit are missing in the worktree.
    """
    set_up = await store.baselines.setup_files(agent)
    return await autocommit.is_clean_at(common_dir, Path(agent.worktree.path), commit, or_less=or_less, set_up=set_up)
