"""Merge jobs made from records alone, without running agents, and daemons that run them."""

import math
import multiprocessing
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from forkjoin.app import open_reconciler
from forkjoin.core import file_lock
from forkjoin.core.agent_spec import Spec
from forkjoin.core.merge_job import MergeJob, MergeJobState
from forkjoin.core.model import Merge, State
from forkjoin.core.paths import Home
from forkjoin.core.result import Result
from forkjoin.core.session import Call
from forkjoin.merge_queue.report import MERGE_REPORT, MergeReport
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.merge_queue.scratch_cleanup import remove_unused_scratches
from forkjoin.reconciler import Reconciler
from forkjoin.store.rows import NewAgent, NewMergeJob
from forkjoin.store.store import Store
from support.branches import commit, everything
from support.fakes import merging_daemon
from support.harness import git

#: The environment in which a merge job's verify runs here.
ENVIRONMENT = {"PATH": os.environ["PATH"]}


async def record_agent(
    store: Store, repository: Path, files: Mapping[str, str | None], branch: str = "forkjoin/of-an-agent"
) -> int:
    """Record a succeeded agent with these changes on its branch. Return its number."""
    base = git(repository, "rev-parse", "main")
    common_dir = git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir")
    work = repository.parent / "work"
    git(repository, "worktree", "add", "-q", "-b", branch, str(work), base)
    tip = commit(work, files)
    git(repository, "worktree", "remove", "--force", str(work))
    project = await store.projects.get_or_add(common_dir)
    spec = Spec(task="x", agent="sh")
    new = NewAgent(project.number, "lead", "x", True, spec, base, str(repository), "c", "")
    (agent,) = await store.lifecycle.spawn([new], lambda _number, _name: (branch, str(work)), Call("", ""))
    await store.agents.update(agent, prepared=True, branch=branch)
    for state in (State.PREPARING, State.RUNNING, State.FINISHING):
        agent = await store.lifecycle.move(agent, state)
    await store.lifecycle.finish(agent, Result(1, State.SUCCEEDED, "", "", commit=tip), Merge.UNMERGED)
    return agent.number


async def record_branches(store: Store, repository: Path, names: Sequence[str], base: str) -> list[int]:
    """Record a succeeded agent for each of these branches. Return their numbers."""
    common_dir = git(repository, "rev-parse", "--path-format=absolute", "--git-common-dir")
    project = await store.projects.get_or_add(common_dir)
    new = [
        NewAgent(project.number, "lead", name, True, Spec(task=name, agent="sh"), base, str(repository), "c", "")
        for name in names
    ]
    branches = iter(names)
    tips = git(repository, "rev-parse", *names).split()
    agents = await store.lifecycle.spawn(
        new, lambda _number, _name: (next(branches), str(repository / "none")), Call("", "")
    )
    for agent, tip in zip(agents, tips, strict=True):
        await store.agents.update(agent, prepared=True)
        for state in (State.PREPARING, State.RUNNING, State.FINISHING):
            agent = await store.lifecycle.move(agent, state)
        await store.lifecycle.finish(agent, Result(1, State.SUCCEEDED, "", "", commit=tip), Merge.UNMERGED)
    return [agent.number for agent in agents]


async def record_merge_job(
    home: Home,
    repository: Path,
    files: Mapping[str, str | None],
    verify: str | None,
    branch: str = "forkjoin/of-an-agent",
) -> int:
    """Record a job that merges an agent with these changes into main.

    Return the job's number.
    """
    async with open_reconciler(home) as reconciler:
        agent = await record_agent(reconciler.store, repository, files, branch)
        project = await reconciler.store.agents.get(agent)
        new = NewMergeJob(project.project, "lead", (agent,), "refs/heads/main", verify, False, "")
        return (await reconciler.store.merges.add(new, Call("", ""))).number


#: The fork server for processes that run merge jobs. Starting such a process without it takes half a second.
PROCESSES = multiprocessing.get_context("forkserver")


def start_forkserver() -> None:
    """Start the fork server before a test has a home.

    A later fork server would count as a process of that home.
    """
    PROCESSES.set_forkserver_preload(
        ["forkjoin.reconciler", "forkjoin.agents.restore_records", "anyio._backends._asyncio"]
    )
    forkserver.ensure_running()


def run_job_in_subprocess(number: int, environment: Mapping[str, str], *falls: str) -> int:
    """Run a merge job in another process. Return its exit code.

    The exit code is negative if a signal ended the process.

    Args:
        falls: The point at which the process kills itself; see `merging_daemon.run_job`.
    """
    process = PROCESSES.Process(target=merging_daemon.run_job, args=(number, dict(environment), falls))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


async def run_job_as_next_daemon(home: Home, number: int) -> MergeReport:
    """Run a merge job as the next daemon does. Return its report."""
    async with open_daemon(home) as reconciler:
        return await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)


@asynccontextmanager
async def open_daemon(home: Home) -> AsyncGenerator[Reconciler]:
    """Open the services of a daemon in this process.

    This process holds the daemon's lock, so no shim starts another daemon.
    """
    held = file_lock.take(home.daemon_lock)
    assert held is not None
    try:
        async with open_reconciler(home) as reconciler:
            yield reconciler
    finally:
        os.close(held)


async def carry_to_its_end(runner: MergeRunner, store: Store, number: int) -> MergeReport:
    """Run a merge job as the reconciler does, unless it is done.

    Return the report.
    """
    job: MergeJob = await store.merges.get(number)
    if job.state is not MergeJobState.DONE:
        await runner.run(job, ENVIRONMENT)
    answer = (await store.merges.get(number)).answer
    assert answer is not None
    return MERGE_REPORT.validate_json(answer)


def ids_of(answer: dict[str, Any], group: str) -> list[str]:
    """Return the agents' ids in this group of an answer of `merge_worktree`."""
    return [one["id"] for one in answer[group]]


def list_scratch_worktrees(repository: Path, home: Home) -> list[str]:
    """Return the names of the scratch worktrees.

    Check that all are registered in the repository, and that no files of their runs are left.
    """
    listed = git(repository, "worktree", "list", "--porcelain").splitlines()
    found = sorted(path.name for path in home.worktrees.iterdir() if path.name.startswith("target-"))
    assert sorted(line.rpartition("/")[2] for line in listed if f"{home.worktrees}/target-" in line) == found
    assert [folder.name for folder in home.attempts.iterdir() if not folder.name.startswith("a")] == []
    return found


async def retire_and_remove_scratches(reconciler: Reconciler) -> None:
    """Retire and remove all scratch worktrees that no merge job may use."""
    await reconciler.store.scratch_worktrees.retire_unused((), math.inf)
    await remove_unused_scratches(reconciler.services)


def check_sound(repository: Path) -> None:
    """Check that the checkout is clean, and that the repository has no lock or error."""
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "fsck", "--no-dangling") == ""
    assert everything(repository)["locks"] == []
