"""Removals that are interrupted, repeated, or run at the same time."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from forkjoin.core.model import Agent, Removal
from forkjoin.core.paths import Home
from forkjoin.git.worktrees import worktree
from forkjoin.reconciler import Reconciler
from support.harness import Lead, first_answer, git, lead_of, open_lead_in_memory, open_reconciler_in_memory
from support.removals import worktree_path_of


async def _is_whole(reconciler: Reconciler) -> bool:
    """Return whether no removal is incomplete."""
    return not await reconciler.store.agents.half_removed()


async def _is_told(reconciler: Reconciler, what: str) -> bool:
    """Return whether the first agent's last event contains this text."""
    return what in (await reconciler.store.agents.get(1)).last_event


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


async def test_an_interrupted_removal_deletes_no_files_if_the_repository_is_gone(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.run("echo x > x.txt; mkdir d; touch d/f; chmod 500 d")
        await reconciler.store.agents.update(await reconciler.store.agents.get(1), removing=Removal.MERGED)
    shutil.rmtree(repository)
    async with open_reconciler_in_memory(home) as reconciler:
        await first_answer(lambda: _is_told(reconciler, "its repository is gone"))
        assert await _is_whole(reconciler)
        assert (worktree_path_of(home, "a1") / "x.txt").exists()
    assert not repository.exists()


async def test_a_repeated_removal_checks_everything_again(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.run("true")
        await reconciler.store.lifecycle.begin_removal([await reconciler.store.agents.get(1)])
        git(worktree_path_of(home, first), "init", "-q", "inner")
        (worktree_path_of(home, first) / "inner" / "late").touch()
        assert "inner (1 uncommitted path)" in await lead.refusal("remove_worktrees", ids=[first])
        assert await _is_whole(reconciler)
        (worktree_path_of(home, first) / "inner").rename(home.state / "moved away")
        assert "warnings" not in await lead.call("remove_worktrees", ids=[first])


async def test_a_branch_that_moves_during_its_removal_is_kept_at_its_new_commit(
    near: Lead, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    later = git(repository, "commit-tree", "-p", branch, "-m", "later", f"{branch}^{{tree}}")
    really = worktree.remove

    async def remove(common_dir: str, path: Path) -> None:
        await really(common_dir, path)
        git(repository, "update-ref", f"refs/heads/{branch}", later)

    with monkeypatch.context() as fault:
        fault.setattr(worktree, "remove", remove)
        message = await near.refusal("remove_worktrees", ids=[first], discard_unmerged=True)
    assert "call remove_worktrees again" in message
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "rev-parse", kept) == later


async def test_simultaneous_removals_remove_each_agent_once(near: Lead, repository: Path) -> None:
    ids = await near.run(*(f"echo {n} > {n}.txt" for n in range(4)))
    answers: list[object] = []

    async def remove() -> None:
        answers.append(await near.call("remove_worktrees", ids=ids, discard_unmerged=True))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(remove)
    assert len(answers) == 3
    assert answers[0] == answers[1] == answers[2]
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept").splitlines()
    assert len(kept) == 4


async def _fall_at_removed(really: Callable[..., Awaitable[None]], *agents: Agent, **fields: object) -> None:
    if "removed" in fields:
        await _fall()
    await really(*agents, **fields)


@pytest.mark.parametrize("falls_at", ["remove", "delete_branch", "set_removed"])
async def test_the_next_daemon_finishes_an_interrupted_removal(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, falls_at: str
) -> None:
    """Fault 2."""
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.run("echo x > x.txt", "echo y > y.txt")
        (worktree_path_of(home, ids[0]) / "later.txt").write_text("later\n")
        with monkeypatch.context() as fault:
            where, name = (reconciler.store.agents, "update") if falls_at == "set_removed" else (worktree, falls_at)
            fault.setattr(
                where, name, partial(_fall_at_removed, reconciler.store.agents.update) if name == "update" else _fall
            )
            assert "falls" in await lead.refusal("remove_worktrees", ids=ids, discard_unmerged=True)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await first_answer(lambda: _is_whole(reconciler))
        assert (await lead.call("list_agents"))["agents"] == []
        assert git(repository, "for-each-ref", "refs/heads/forkjoin") == ""
        assert len(git(repository, "worktree", "list").splitlines()) == 1
        answer = await lead.call("remove_worktrees", ids=ids, discard_unmerged=True)
    kept = [agent["kept_as"] for agent in answer["removed"]]
    assert git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept").splitlines() == sorted(kept)
    assert git(repository, "show", f"{kept[0]}:later.txt") == "later"
    assert git(repository, "show", f"{kept[1]}:y.txt") == "y"


async def test_a_repeated_removal_waits_for_the_interrupted_one(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.run(*(f"echo {n} > {n}.txt" for n in range(6)))
        with monkeypatch.context() as fault:
            fault.setattr(worktree, "remove", _fall)
            await lead.refusal("remove_worktrees", ids=ids, discard_unmerged=True)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        answer = await lead.call("remove_worktrees", ids=ids, discard_unmerged=True)
    assert [agent["id"] for agent in answer["removed"]] == ids
    assert all(agent["kept_as"] for agent in answer["removed"])


async def test_an_agent_that_cant_be_removed_completely_delays_no_other(
    near: Lead, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await near.run(*(f"echo {n} > {n}.txt" for n in range(3)))
    stuck, remove = worktree_path_of(home, ids[1]), worktree.remove

    async def remove_others(common_dir: str, path: Path) -> None:
        if path == stuck:
            raise OSError("Device or resource busy")
        await remove(common_dir, path)

    with monkeypatch.context() as fault:
        fault.setattr(worktree, "remove", remove_others)
        refusal = await near.refusal("remove_worktrees", ids=ids, discard_unmerged=True)
    assert f"{ids[1]} (" in refusal
    assert "Device or resource busy" in refusal
    assert f"These were removed: {ids[0]}, {ids[2]}." in refusal
    assert [path.name for path in stuck.parent.iterdir()] == [stuck.name]
    answer = await near.call("remove_worktrees", ids=ids, discard_unmerged=True)
    assert all(agent["kept_as"] for agent in answer["removed"])
    assert git(repository, "branch", "--list", "forkjoin/*") == ""


async def _fall(*_: object) -> None:
    raise RuntimeError("the daemon falls")
