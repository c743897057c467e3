"""The last merge is taken back: the target goes back, or gets a revert, and nobody's work is lost."""

from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.git.merging import move_target
from forkjoin.reconciler import Reconciler
from support.branches import commit, contents, write
from support.harness import Lead, git
from support.merges import check_sound, ids_of


async def fares(lead: Lead, *ids: str) -> list[str]:
    return [(await lead.call("get_result", id=one))["merge"] for one in ids]


async def test_a_target_goes_back_to_where_it_was_beside_what_its_user_has_changed(
    near_lead: Lead, repository: Path
) -> None:
    before = git(repository, "rev-parse", "main")
    ids = await near_lead.run("echo > one", "echo > two; rm README.md")
    merged = await near_lead.call("merge_worktree", ids=ids)
    write(repository, "shared.txt", "edited\n")
    write(repository, "untracked", "x\n")
    answer = await near_lead.call("undo_merge")
    assert answer == {"undone": ids, "target": "main", "commit": before}
    assert git(repository, "rev-parse", "main") == before
    assert git(repository, "status", "--porcelain").splitlines() == [" M shared.txt", "?? untracked"]
    assert git(repository, "reflog", "-1", "--format=%gs", "main") == f"forkjoin: undo the merge of {', '.join(ids)}"
    assert await fares(near_lead, *ids) == ["unmerged", "unmerged"]
    assert merged["commit"] in git(repository, "for-each-ref", "--format=%(objectname)", "refs/forkjoin/kept")
    assert ids_of(await near_lead.call("merge_worktree", ids=ids), "merged") == ids


async def test_what_others_built_on_is_reverted_by_a_commit(near_lead: Lead, repository: Path) -> None:
    ids = await near_lead.run("echo > one; echo agents > shared.txt")
    merged = await near_lead.call("merge_worktree", ids=ids)
    commit(repository, {"person": "x\n"})
    answer = await near_lead.call("undo_merge")
    assert "git revert" in answer["note"]
    assert git(repository, "rev-parse", "main~1^") == merged["commit"]
    assert sorted(contents(repository)) == ["README.md", "person", "shared.txt"]
    assert (repository / "shared.txt").read_text() == "one\ntwo\nthree\n"
    assert git(repository, "log", "-1", "--format=%s", "main") == f"Revert the merge of {ids[0]}"
    assert await fares(near_lead, *ids) == ["merged"]
    git(repository, "revert", "--no-edit", answer["commit"])
    assert (repository / "one").exists()
    check_sound(repository)


async def test_what_can_not_be_taken_back_by_itself_is_refused_with_the_files(
    near_lead: Lead, repository: Path
) -> None:
    ids = await near_lead.run("echo agents > shared.txt")
    await near_lead.call("merge_worktree", ids=ids)
    now = commit(repository, {"shared.txt": "agents and a person's\n"})
    assert "in shared.txt, so the merge can't be reverted automatically" in await near_lead.refusal("undo_merge")
    assert git(repository, "rev-parse", "main") == now
    check_sound(repository)


async def test_once_more_takes_back_the_merge_before_and_then_there_is_nothing(
    near_lead: Lead, repository: Path
) -> None:
    before = git(repository, "rev-parse", "main")
    ids = await near_lead.run("echo > one", "echo > two")
    for one in ids:
        await near_lead.call("merge_worktree", ids=[one])
    assert [(await near_lead.call("undo_merge"))["undone"] for _ in ids] == [[one] for one in reversed(ids)]
    assert git(repository, "rev-parse", "main") == before
    assert "nothing to undo" in await near_lead.refusal("undo_merge")
    assert "nothing to undo" in await near_lead.refusal("undo_merge", into="main")


async def test_a_target_that_was_reset_by_hand_is_left_as_it_is(near_lead: Lead, repository: Path) -> None:
    before = git(repository, "rev-parse", "main")
    ids = await near_lead.run("echo > one")
    await near_lead.call("merge_worktree", ids=ids)
    git(repository, "reset", "-q", "--hard", before)
    assert "nothing to undo" in await near_lead.refusal("undo_merge")


async def test_what_was_set_back_by_hand_hides_no_merge_before_it(near_lead: Lead, repository: Path) -> None:
    ids = await near_lead.run("echo > one", "echo > two")
    merged = [await near_lead.call("merge_worktree", ids=[one]) for one in ids]
    git(repository, "reset", "-q", "--hard", merged[0]["commit"])
    assert (await near_lead.call("undo_merge"))["undone"] == ids[:1]


async def test_a_move_that_failed_is_none_to_undo_and_an_undo_that_failed_has_undone_nothing(
    near_lead: Lead, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise CallerError("a folder of root's")

    ids = await near_lead.run("echo > one", "echo > two", "echo > three")
    for one in ids[:2]:
        await near_lead.call("merge_worktree", ids=[one])
    with monkeypatch.context() as patch:
        patch.setattr(move_target, "apply_move", refuse)
        await near_lead.refusal("merge_worktree", ids=ids[2:])
        await near_lead.refusal("undo_merge")
    assert (await near_lead.call("undo_merge"))["undone"] == ids[1:2]


async def test_an_undo_stays_on_record_as_long_as_what_it_undid(
    near_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    ids = await near_lead.run("echo > one", "echo > two", "echo > three")
    for one in ids[:2]:
        await near_lead.call("merge_worktree", ids=[one])
    commit(repository, {"person": "x\n"})
    await near_lead.call("undo_merge")
    await near_lead.call("merge_worktree", ids=ids[2:], dry_run=True)
    await in_process_reconciler.store.retention.prune(1, [])
    assert (await near_lead.call("undo_merge"))["undone"] == ids[:1]


async def test_work_whose_branch_was_removed_stays_reachable(near_lead: Lead, repository: Path) -> None:
    ids = await near_lead.run("echo > one")
    tip = git(repository, "rev-parse", (await near_lead.call("get_result", id=ids[0]))["branch"])
    await near_lead.call("merge_worktree", ids=ids)
    await near_lead.call("remove_worktrees", ids=ids)
    await near_lead.call("undo_merge")
    assert git(repository, "for-each-ref", "--contains", tip, "--format=%(refname)") == "refs/forkjoin/kept/undone-1"


async def test_a_name_that_is_anothers_by_now_stays_so(near_lead: Lead) -> None:
    first = (await near_lead.call("spawn_agent", task="echo > one", name="again"))["id"]
    await near_lead.call("wait_agents", ids=[first])
    await near_lead.call("merge_worktree", ids=[first])
    await near_lead.call("spawn_agent", task="echo > two", name="again")
    assert (await near_lead.call("undo_merge"))["undone"] == [first]
    assert await fares(near_lead, first) == ["merged"]


async def test_a_dry_run_is_nothing_to_undo(near_lead: Lead) -> None:
    ids = await near_lead.run("echo > one")
    await near_lead.call("merge_worktree", ids=ids, dry_run=True)
    assert "nothing to undo" in await near_lead.refusal("undo_merge")
