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
    """Record an agent that has succeeded, with these changes on a branch of its own; its number."""
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
    """Record, for each of these branches, an agent that has succeeded and left it; their numbers."""
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


async def record_landing(
    home: Home,
    repository: Path,
    files: Mapping[str, str | None],
    verify: str | None,
    branch: str = "forkjoin/of-an-agent",
) -> int:
    """Record a landing, onto main, of an agent with these changes; its number."""
    async with open_reconciler(home) as reconciler:
        agent = await record_agent(reconciler.store, repository, files, branch)
        project = await reconciler.store.agents.get(agent)
        new = NewMergeJob(project.project, "lead", (agent,), "refs/heads/main", verify, False, "")
        return (await reconciler.store.merges.add(new, Call("", ""))).number


#: Where processes are forked from that carry out landings: to start each from nothing takes half a second.
PROCESSES = multiprocessing.get_context("forkserver")


def start_forkserver() -> None:
    """Start what processes are forked from before a test has a home: it would be taken for one of its own."""
    PROCESSES.set_forkserver_preload(
        ["forkjoin.reconciler", "forkjoin.agents.restore_records", "anyio._backends._asyncio"]
    )
    forkserver.ensure_running()


def carry_out_elsewhere(number: int, environment: Mapping[str, str], *falls: str) -> int:
    """Let another process carry out a landing, which may fall on the way; its exit code, or minus its signal."""
    process = PROCESSES.Process(target=merging_daemon.carry_out, args=(number, dict(environment), falls))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


async def carry_out_here(home: Home, number: int) -> MergeReport:
    """Carry out a landing as the next daemon does; what is answered."""
    async with open_daemon(home) as reconciler:
        return await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)


@asynccontextmanager
async def open_daemon(home: Home) -> AsyncGenerator[Reconciler]:
    """What a daemon has, in this process, which passes for it: no shim starts another."""
    held = file_lock.take(home.daemon_lock)
    assert held is not None
    try:
        async with open_reconciler(home) as reconciler:
            yield reconciler
    finally:
        os.close(held)


async def carry_to_its_end(runner: MergeRunner, store: Store, number: int) -> MergeReport:
    """Carry a landing on as the reconciler does; what is answered."""
    landing: MergeJob = await store.merges.get(number)
    if landing.state is not MergeJobState.DONE:
        await runner.run(landing, ENVIRONMENT)
    answer = (await store.merges.get(number)).answer
    assert answer is not None
    return MERGE_REPORT.validate_json(answer)


def ids_of(answer: dict[str, Any], group: str) -> list[str]:
    """The agents that `merge_worktree` tells of in this group."""
    return [one["id"] for one in answer[group]]


def scratch_of(repository: Path, home: Home) -> list[str]:
    """The scratch worktrees, which the repository knows, and in which nothing is left of any run."""
    listed = git(repository, "worktree", "list", "--porcelain").splitlines()
    found = sorted(path.name for path in home.worktrees.iterdir() if path.name.startswith("target-"))
    assert sorted(line.rpartition("/")[2] for line in listed if f"{home.worktrees}/target-" in line) == found
    assert [folder.name for folder in home.attempts.iterdir() if not folder.name.startswith("a")] == []
    return found


async def retire_all(reconciler: Reconciler) -> None:
    """Retire all scratch worktrees that no landing may use, as after a day without one."""
    await reconciler.store.scratch_worktrees.retire_unused((), math.inf)
    await remove_unused_scratches(reconciler.services)


def check_sound(repository: Path) -> None:
    """See that its user finds a clean checkout, a sound repository and no lock."""
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "fsck", "--no-dangling") == ""
    assert everything(repository)["locks"] == []
