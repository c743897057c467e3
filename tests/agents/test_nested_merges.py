"""Merges of nested agents into the branch of the agent that spawned them."""

from functools import partial
from pathlib import Path

import anyio
import pytest
from forkjoin.reconciler import Reconciler
from support.harness import (
    Lead,
    first_answer,
    git,
    program_of,
    until,
)
from support.nested_agents import begin

AUTHOR = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")


async def test_a_merge_into_a_branch_that_was_made_a_symbolic_ref_is_refused(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    main, agent = git(repository, "rev-parse", "main"), await in_process_reconciler.store.agents.get(1)
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("echo theirs > theirs.txt")
        git(Path(agent.worktree.path), "checkout", "-q", "--detach")
        git(repository, "symbolic-ref", agent.ref, "refs/heads/main")
        for tool, given in (("merge_worktree", {"ids": ["a2"]}), ("merge_worktree", {"ids": ["a2"], "dry_run": True})):
            assert "is a symbolic ref to another branch" in await program.refusal(tool, **given)
    git(repository, "symbolic-ref", "--delete", agent.ref)
    assert (git(repository, "rev-parse", "main"), git(repository, "status", "--porcelain")) == (main, "")


async def test_a_merge_into_a_branch_that_becomes_a_symbolic_ref_changes_nothing(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    main, agent = git(repository, "rev-parse", "main"), await in_process_reconciler.store.agents.get(1)
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("echo theirs > theirs.txt")
        git(Path(agent.worktree.path), "checkout", "-q", "--detach")
        turn = f"git -C {repository} symbolic-ref {agent.ref} refs/heads/main"
        assert "is a symbolic ref" in await program.refusal("merge_worktree", ids=["a2"], verify=turn)
    git(repository, "symbolic-ref", "--delete", agent.ref)
    assert (git(repository, "rev-parse", "main"), git(repository, "status", "--porcelain")) == (main, "")


async def test_a_nested_merge_goes_into_the_parents_branch_wherever_its_head_points(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    main, agent = git(repository, "rev-parse", "main"), await in_process_reconciler.store.agents.get(1)
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("echo theirs > theirs.txt")
        git(Path(agent.worktree.path), "symbolic-ref", "HEAD", "refs/heads/main")
        answer = await program.call("merge_worktree", ids=["a2"])
    assert answer["target"] == agent.worktree.branch
    assert git(repository, "show", f"{agent.worktree.branch}:theirs.txt") == "theirs"
    assert git(repository, "rev-parse", "main") == main


async def test_a_nested_merge_is_refused_if_another_checkout_has_the_parents_branch(
    in_process_reconciler: Reconciler, near_lead: Lead, repository: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    agent = await in_process_reconciler.store.agents.get(1)
    async with program_of(in_process_reconciler, parent) as program:
        await program.run("echo theirs > theirs.txt")
        git(Path(agent.worktree.path), "checkout", "-q", "--detach")
        git(repository, "symbolic-ref", "HEAD", agent.ref)
        refused = await program.refusal("merge_worktree", ids=["a2"])
        assert f"is checked out in {repository} instead of its own worktree" in refused
    assert not (repository / "theirs.txt").exists()


async def test_nothing_is_merged_into_the_branch_of_an_ended_agent(
    in_process_reconciler: Reconciler, near_lead: Lead, tmp_path: Path
) -> None:
    parent = await begin(near_lead, agents=5)
    verify = f"touch {tmp_path}/begun; until test -e {tmp_path}/go; do sleep 0.05; done"
    branch = (await in_process_reconciler.store.agents.get(1)).worktree.branch
    async with program_of(in_process_reconciler, parent) as program, anyio.create_task_group() as tasks:
        (child,) = await program.run("echo theirs > theirs.txt")
        refused: list[str] = []

        async def merge() -> None:
            refused.append(await program.refusal("merge_worktree", ids=[child], verify=verify))

        tasks.start_soon(merge)
        await until((tmp_path / "begun").exists)
        before = git(Path((await in_process_reconciler.store.agents.get(1)).worktree.path), "rev-parse", branch)
        await near_lead.call("stop_agents", ids=[parent])
        (tmp_path / "go").touch()
        await until(lambda: refused)
        assert "has ended (stopped), so nothing more is merged into its branch" in refused[0]
        assert git(Path((await in_process_reconciler.store.agents.get(1)).worktree.path), "rev-parse", branch) == before
        assert (await near_lead.listed(child))["merge"] == "unmerged"


async def test_a_merge_that_waits_for_an_environment_ends_with_the_agent_that_requested_it(
    in_process_reconciler: Reconciler, near_lead: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = await begin(near_lead, agents=5)
    async with program_of(in_process_reconciler, parent) as program:
        (child,) = await program.run("echo theirs > theirs.txt")
        monkeypatch.setattr(in_process_reconciler.services.environments, "find", _lost)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(program.refusal, "merge_worktree", ids=[child], verify="true"))
            await first_answer(partial(waits, in_process_reconciler))
            await in_process_reconciler.store.lifecycle.ask_stop(await in_process_reconciler.store.agents.live())


def _lost(*_: object) -> None:
    return None


async def waits(reconciler: Reconciler) -> bool:
    """Return whether a merge waits for an environment."""
    return reconciler.merges_without_environment > 0
