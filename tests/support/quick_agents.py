"""Agents without processes: the reconciler runs their tasks at once, and records only their branches and results.

For tests of what comes after the agents, such as merges. A real agent takes a shim, a program and forty git processes.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from forkjoin.agents.base_commit import determine_base
from forkjoin.agents.run_agent import run_agent as run_real_agent
from forkjoin.core.model import Agent, Merge, State
from forkjoin.core.result import Result
from forkjoin.services import Services

#: Runs the task on the files of $BASE, commits what it leaves, and prints its exit code and the branch's commit.
_SCRIPT = """
export GIT_AUTHOR_NAME=agent GIT_AUTHOR_EMAIL=agent GIT_COMMITTER_NAME=agent GIT_COMMITTER_EMAIL=agent
export GIT_DIR GIT_WORK_TREE=. GIT_INDEX_FILE=$PWD.index
git read-tree -m -u "$BASE" || exit
code=0
(unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE; exec sh ../task) >&2 || code=$?
git add --all
tip=$(git commit-tree -p "$BASE" -m work "$(git write-tree)")
git diff-tree --quiet "$BASE" "$tip" && tip=$BASE
git update-ref "refs/heads/$BRANCH" "$tip"
echo "$code $tip"
"""


@contextmanager
def quick_agents(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Let agents whose tasks need no worktree of their own run without processes.

    Tasks that call git, wait or are verified, and the tasks of resolvers, run as real agents.
    """

    async def run_agent(services: Services, number: int) -> None:
        agent = await services.store.agents.get(number)
        if agent.state is State.PREPARING and _is_quick(agent, await services.store.agents.task(number)):
            await _run(services, agent, await services.store.agents.task(number))
        else:
            await run_real_agent(services, number)

    with monkeypatch.context() as patch:
        patch.setattr("forkjoin.reconciler.run_agent", run_agent)
        yield


def _is_quick(agent: Agent, task: str) -> bool:
    needs_worktree = any(word in task for word in ("git ", "sleep", "FORKJOIN"))
    needs_program = agent.spec.verify or agent.conflict.agent is not None or agent.attempt > 1
    return not needs_worktree and not needs_program


async def _run(services: Services, agent: Agent, task: str) -> None:
    store = services.store
    common_dir = (await store.projects.get(agent.project)).common_dir
    agent = await determine_base(services, common_dir, agent)
    variables = {"GIT_DIR": common_dir, "BASE": agent.worktree.base, "BRANCH": agent.worktree.branch}
    with TemporaryDirectory() as folder:
        (work := Path(folder) / "work").mkdir()
        (Path(folder) / "task").write_text(task)
        done = await anyio.run_process(["sh", "-c", _SCRIPT], cwd=work, env={**os.environ, **variables}, stderr=None)
    code, tip = done.stdout.decode().split()
    await store.agents.update(agent, prepared=True)
    for state in (State.RUNNING, State.FINISHING):
        agent = await store.lifecycle.move(agent, state)
    commits = () if tip == agent.worktree.base else (f"{tip[:12]} work",)
    result = Result(1, State.FAILED if int(code) else State.SUCCEEDED, "", "", commits=commits, commit=tip)
    await store.lifecycle.finish(agent, result, Merge.UNMERGED if commits else Merge.NOTHING)
