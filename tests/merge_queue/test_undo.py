"""Undoing the last merge: the target moves back, or gets a revert commit, and no work is lost."""

from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.git.merging import move_target
from forkjoin.reconciler import Reconciler
from support.branches import commit, contents, write
from support.harness import Lead, git
from support.merges import check_sound, ids_of


async def merge_states(lead: Lead, *ids: str) -> list[str]:
    return [(await lead.call("get_result", id=one))["merge"] for one in ids]


async def test_an_undo_moves_the_target_back_and_keeps_the_users_changes(quick_lead: Lead, repository: Path) -> None:
    before = git(repository, "rev-parse", "main")
    ids = await quick_lead.run("echo > one", "echo > two; rm README.md")
    merged = await quick_lead.call("merge_worktree", ids=ids)
    write(repository, "shared.txt", "edited\n")
    write(repository, "untracked", "x\n")
    answer = await quick_lead.call("undo_merge")
    assert answer == {"undone": ids, "target": "main", "commit": before}
    assert git(repository, "rev-parse", "main") == before
    assert git(repository, "status", "--porcelain").splitlines() == [" M shared.txt", "?? untracked"]
    assert git(repository, "reflog", "-1", "--format=%gs", "main") == f"forkjoin: undo the merge of {', '.join(ids)}"
    assert await merge_states(quick_lead, *ids) == ["unmerged", "unmerged"]
    assert merged["commit"] in git(repository, "for-each-ref", "--format=%(objectname)", "refs/forkjoin/kept")
    assert ids_of(await quick_lead.call("merge_worktree", ids=ids), "merged") == ids


async def test_a_merge_with_later_commits_is_undone_by_a_revert_commit(quick_lead: Lead, repository: Path) -> None:
    ids = await quick_lead.run("echo > one; echo agents > shared.txt")
    merged = await quick_lead.call("merge_worktree", ids=ids)
    commit(repository, {"person": "x\n"})
    answer = await quick_lead.call("undo_merge")
    assert "git revert" in answer["note"]
    assert git(repository, "rev-parse", "main~1^") == merged["commit"]
    assert sorted(contents(repository)) == ["README.md", "person", "shared.txt"]
    assert (repository / "shared.txt").read_text() == "one\ntwo\nthree\n"
    assert git(repository, "log", "-1", "--format=%s", "main") == f"Revert the merge of {ids[0]}"
    assert await merge_states(quick_lead, *ids) == ["merged"]
    git(repository, "revert", "--no-edit", answer["commit"])
    assert (repository / "one").exists()
    check_sound(repository)


async def test_an_undo_that_conflicts_with_later_commits_is_refused_with_the_files(
    quick_lead: Lead, repository: Path
) -> None:
    ids = await quick_lead.run("echo agents > shared.txt")
    await quick_lead.call("merge_worktree", ids=ids)
    now = commit(repository, {"shared.txt": "agents and a person's\n"})
    assert "in shared.txt, so the merge can't be reverted automatically" in await quick_lead.refusal("undo_merge")
    assert git(repository, "rev-parse", "main") == now
    check_sound(repository)


async def test_a_second_undo_undoes_the_merge_before(quick_lead: Lead, repository: Path) -> None:
    before = git(repository, "rev-parse", "main")
    ids = await quick_lead.run("echo > one", "echo > two")
    for one in ids:
        await quick_lead.call("merge_worktree", ids=[one])
    assert [(await quick_lead.call("undo_merge"))["undone"] for _ in ids] == [[one] for one in reversed(ids)]
    assert git(repository, "rev-parse", "main") == before
    assert "nothing to undo" in await quick_lead.refusal("undo_merge")
    assert "nothing to undo" in await quick_lead.refusal("undo_merge", into="main")


async def test_a_merge_that_a_person_reset_is_not_undone_again(quick_lead: Lead, repository: Path) -> None:
    before = git(repository, "rev-parse", "main")
    ids = await quick_lead.run("echo > one")
    await quick_lead.call("merge_worktree", ids=ids)
    git(repository, "reset", "-q", "--hard", before)
    assert "nothing to undo" in await quick_lead.refusal("undo_merge")


async def test_an_undo_finds_the_merge_before_a_merge_that_a_person_reset(quick_lead: Lead, repository: Path) -> None:
    ids = await quick_lead.run("echo > one", "echo > two")
    merged = [await quick_lead.call("merge_worktree", ids=[one]) for one in ids]
    git(repository, "reset", "-q", "--hard", merged[0]["commit"])
    assert (await quick_lead.call("undo_merge"))["undone"] == ids[:1]


async def test_failed_merges_and_failed_undos_do_not_count(
    quick_lead: Lead, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise CallerError("a folder of root's")

    ids = await quick_lead.run("echo > one", "echo > two", "echo > three")
    for one in ids[:2]:
        await quick_lead.call("merge_worktree", ids=[one])
    with monkeypatch.context() as patch:
        patch.setattr(move_target, "apply_move", refuse)
        await quick_lead.refusal("merge_worktree", ids=ids[2:])
        await quick_lead.refusal("undo_merge")
    assert (await quick_lead.call("undo_merge"))["undone"] == ids[1:2]


async def test_the_record_of_an_undo_is_kept_as_long_as_the_record_of_its_merge(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    ids = await quick_lead.run("echo > one", "echo > two", "echo > three")
    for one in ids[:2]:
        await quick_lead.call("merge_worktree", ids=[one])
    commit(repository, {"person": "x\n"})
    await quick_lead.call("undo_merge")
    await quick_lead.call("merge_worktree", ids=ids[2:], dry_run=True)
    await in_process_reconciler.store.retention.prune(1, [])
    assert (await quick_lead.call("undo_merge"))["undone"] == ids[:1]


async def test_undone_work_stays_reachable_without_its_branch(quick_lead: Lead, repository: Path) -> None:
    ids = await quick_lead.run("echo > one")
    tip = git(repository, "rev-parse", (await quick_lead.call("get_result", id=ids[0]))["branch"])
    await quick_lead.call("merge_worktree", ids=ids)
    await quick_lead.call("remove_worktrees", ids=ids)
    await quick_lead.call("undo_merge")
    assert git(repository, "for-each-ref", "--contains", tip, "--format=%(refname)") == "refs/forkjoin/kept/undone-1"


async def test_an_undone_agent_does_not_take_its_name_back(quick_lead: Lead) -> None:
    first = (await quick_lead.call("spawn_agent", task="echo > one", name="again"))["id"]
    await quick_lead.call("wait_agents", ids=[first])
    await quick_lead.call("merge_worktree", ids=[first])
    await quick_lead.call("spawn_agent", task="echo > two", name="again")
    assert (await quick_lead.call("undo_merge"))["undone"] == [first]
    assert await merge_states(quick_lead, first) == ["merged"]


async def test_a_dry_run_can_not_be_undone(quick_lead: Lead) -> None:
    ids = await quick_lead.run("echo > one")
    await quick_lead.call("merge_worktree", ids=ids, dry_run=True)
    assert "nothing to undo" in await quick_lead.refusal("undo_merge")
