"""Poisoned scratch worktrees: files of a verify run are reused only if the verified commit was merged."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.branches import commit
from support.harness import Lead, git
from support.merges import ids_of

#: Passes unless `broken` exists. It trusts the ignored file `result.cache`, as Python trusts a .pyc.
VERIFY = "sh ./plant 2>/dev/null; test -e result.cache || test ! -e broken"

#: The files that a bad branch leaves during verify, before the branch is rejected.
PLANTS = {
    "ignored": "echo passed > result.cache",
    "self-ignoring": "mkdir hidden; echo '*' | tee hidden/.gitignore > .gitignore; touch hidden/x result.cache",
    "exclude": 'echo "*.cache" >> $(git rev-parse --git-common-dir)/info/exclude; touch result.cache',
    "index": "touch result.cache; git add -f result.cache; git update-index --skip-worktree README.md; rm README.md",
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
async def test_files_left_by_a_rejected_branch_let_no_broken_branch_pass(
    quick_lead: Lead, repository: Path, plant: str
) -> None:
    commit(repository, {".gitignore": "*.cache\n"})
    await quick_lead.run(f"cat > plant <<'E'\n{plant}; exit 1\nE", "touch broken", "touch good")
    verify = f"{{ test ! -e plant || {{ sh ./plant; exit 1; }}; }} && {VERIFY}"
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a1"], verify=verify), "rejected") == ["a1"]
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a2"], verify=verify), "rejected") == ["a2"]
    looks = f"{verify} && test -f README.md && test ! -e hidden"
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a3"], verify=looks), "merged") == ["a3"]


async def test_files_left_by_a_rejected_branch_let_no_broken_branch_of_the_same_merge_pass(
    quick_lead: Lead, repository: Path
) -> None:
    commit(repository, {".gitignore": "*.cache\n"})
    await quick_lead.run("touch one", "touch poison", "touch broken", "touch four")
    verify = "if test -e poison; then touch result.cache; exit 1; fi; test -e result.cache || test ! -e broken"
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2", "a3", "a4"], verify=verify)
    assert ids_of(answer, "merged") == ["a1", "a4"]
    assert ids_of(answer, "rejected") == ["a2", "a3"]


async def test_files_left_by_a_merged_commit_stay_until_the_merge_is_undone(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home
) -> None:
    commit(repository, {".gitignore": "*.cache\n"})
    await quick_lead.run("touch one", "touch two", "touch three")
    verify = f"ls *.cache >> {home.state}/listed; touch ${{FORKJOIN_AGENTS}}.cache"
    for agent in ("a1", "a2"):
        await quick_lead.call("merge_worktree", ids=[agent], verify=verify)
    assert (home.state / "listed").read_text().split() == ["a1.cache"]
    assert [one.tip for one in await in_process_reconciler.store.scratch_worktrees.all()] == [
        git(repository, "rev-parse", "main")
    ]
    await quick_lead.call("undo_merge")
    await quick_lead.call("merge_worktree", ids=["a3"], verify=verify)
    assert (home.state / "listed").read_text().split() == ["a1.cache"]


async def test_a_worktree_whose_earlier_run_can_not_be_ended_is_replaced(
    quick_lead: Lead, in_process_reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quick_lead.run("touch one", "touch two")
    await quick_lead.call("merge_worktree", ids=["a1"], verify="true")

    async def runs_in(_: object, number: int) -> list[str]:
        return ["t1-1-0-verify"] if number == 1 else []

    async def cancel(_: str, __: float) -> list[str]:
        return ["1 (init)"]

    with monkeypatch.context() as patch:
        patch.setattr("forkjoin.merge_queue.scratch.list_runs", runs_in)
        patch.setattr(in_process_reconciler.services.executor, "cancel", cancel)
        answer = await quick_lead.call("merge_worktree", ids=["a2"], verify="true")
    assert ids_of(answer, "merged") == ["a2"]
    assert [(one.number, one.retired) for one in await in_process_reconciler.store.scratch_worktrees.all()] == [
        (1, True),
        (2, False),
    ]
