"""The preparation of an agent: its worktree, its workspace, and the tokens of its attempts."""

import functools
import secrets
from collections.abc import Mapping
from pathlib import Path

from forkjoin.agents.base_commit import determine_base
from forkjoin.core.error import CallerError, ForkjoinError
from forkjoin.core.model import Agent
from forkjoin.core.redaction import ISSUED
from forkjoin.core.session import digest_of
from forkjoin.git.worktrees import autocommit, merge_in_worktree, worktree
from forkjoin.git.worktrees.included_files import bring_ignored
from forkjoin.git.worktrees.worktree_folder import is_folder
from forkjoin.services import Services
from forkjoin.workspace.workspace import Workspace


async def prepare(services: Services, agent: Agent) -> Agent:
    """Create the agent's worktree and branch, unless they exist.

    Return the agent's updated record.

    A later attempt gets the worktree as the earlier attempt left it, with its registration in git repaired. An agent
    that resolves a conflict gets a worktree in the middle of the merge.

    Raises:
        GitError: git failed. The worktree was removed again.
        CallerError: The worktree's folder is behind a symlink, the disk is full, or the work of two dependencies
            conflicts. The worktree was removed again.
    """
    home, store = services.home, services.store
    path = Path(agent.worktree.path)
    if path.parent.resolve() != home.state.resolve() / home.worktrees.name / path.parent.name:
        raise CallerError(
            f"{path.parent} is behind a symlink. Remove the symlink, or set FORKJOIN_HOME to another folder."
        )
    project = await store.projects.get(agent.project)
    if agent.attempt > 1 and agent.worktree.prepared and is_folder(path):
        await autocommit.repair(project.common_dir, path, agent.worktree.branch)
        return agent
    agent = await determine_base(services, project.common_dir, agent)
    owner = f"{agent.id} of {home.state}"
    like = Path(agent.worktree.checkout) if agent.worktree.checkout and agent.spec.sparse else None
    branch = await worktree.make(project.common_dir, path, agent.worktree.branch, agent.worktree.base, owner, like=like)
    try:
        if agent.conflict.agent is not None and not agent.worktree.prepared:
            message = f"Merge the work of a{agent.conflict.agent}\n\nForkjoin-Agent: {agent.id}\n"
            await merge_in_worktree.begin(project.common_dir, path, agent.conflict.commit, message)
        if agent.worktree.checkout:
            await bring_ignored(Path(agent.worktree.checkout), path)
    except (ForkjoinError, OSError):
        if not agent.worktree.prepared:  # an earlier attempt may have left work in a prepared worktree
            await worktree.discard(project.common_dir, path, branch, agent.worktree.base)
        raise
    await store.agents.update(agent, prepared=True, branch=branch)
    return await store.agents.get(agent.number)


async def workspace_of(services: Services, agent: Agent, environment: Mapping[str, str]) -> Workspace:
    """Return the agent's workspace, in which its program and its commands run.

    Args:
        environment: The environment of the agent's lead.
    """
    project = await services.store.projects.get(agent.project)
    ours = {
        "FORKJOIN_AGENT": agent.id,
        "FORKJOIN_NAME": agent.name,
        "FORKJOIN_BRANCH": agent.worktree.branch,
        "FORKJOIN_BASE": agent.worktree.base,
    }
    return Workspace(
        services=services,
        handle=agent.handle,
        common_dir=project.common_dir,
        path=Path(agent.worktree.path),
        checkout=agent.worktree.checkout,
        repository_settings=await services.store.projects.recipe(agent),
        port_base=agent.worktree.port_base,
        environment=environment,
        variables=ours,
    )


async def issue_token(services: Services, agent: Agent) -> str:
    """Return the token of the newest attempt, and record the token's digest.

    The attempt's program authenticates with it.
    """
    token = _token(agent.handle)
    await services.store.agents.add_token(agent.number, digest_of(token))
    return token


@functools.lru_cache(maxsize=4096)
def _token(handle: str) -> str:  # noqa: ARG001
    """Return the token of an attempt, generated once and kept in memory only."""
    return ISSUED + secrets.token_urlsafe(24)
