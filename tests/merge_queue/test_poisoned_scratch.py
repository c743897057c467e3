"""A scratch worktree can't be poisoned: what a run left there is used only if the commit that was run has landed."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.branches import commit
from support.harness import Lead, git
from support.merges import ids_of

#: Passes unless `broken` is there, but trusts what git ignores: `result.cache`, as Python does a .pyc.
VERIFY = "sh ./plant 2>/dev/null; test -e result.cache || test ! -e broken"

#: What the code of a bad branch leaves when it is verified, before it is rejected.
PLANTS = {
    "ignored": "echo passed > result.cache",
    "self-ignoring": "mkdir hidden; echo '*' | tee hidden/.gitignore > .gitignore; touch hidden/x result.cache",
    "exclude": 'echo "*.cache" >> $(git rev-parse --git-common-dir)/info/exclude; touch result.cache',
    "index": "touch result.cache; git add -f result.cache; git update-index --skip-worktree README.md; rm README.md",
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
async def test_what_a_rejected_branch_has_left_lets_no_broken_one_pass(
    near_lead: Lead, repository: Path, plant: str
) -> None:
    commit(repository, {".gitignore": "*.cache\n"})
    await near_lead.run(f"cat > plant <<'E'\n{plant}; exit 1\nE", "touch broken", "touch good")
    verify = f"{{ test ! -e plant || {{ sh ./plant; exit 1; }}; }} && {VERIFY}"
    assert ids_of(await near_lead.call("merge_worktree", ids=["a1"], verify=verify), "rejected") == ["a1"]
    assert ids_of(await near_lead.call("merge_worktree", ids=["a2"], verify=verify), "rejected") == ["a2"]
    looks = f"{verify} && test -f README.md && test ! -e hidden"
    assert ids_of(await near_lead.call("merge_worktree", ids=["a3"], verify=looks), "merged") == ["a3"]


async def test_nor_does_it_in_the_same_merge(near_lead: Lead, repository: Path) -> None:
    commit(repository, {".gitignore": "*.cache\n"})
    await near_lead.run("touch one", "touch poison", "touch broken", "touch four")
    verify = "if test -e poison; then touch result.cache; exit 1; fi; test -e result.cache || test ! -e broken"
    answer = await near_lead.call("merge_worktree", ids=["a1", "a2", "a3", "a4"], verify=verify)
    assert ids_of(answer, "merged") == ["a1", "a4"]
    assert ids_of(answer, "rejected") == ["a2", "a3"]


async def test_what_a_landed_commit_has_left_stays_until_it_is_in_the_target_no_more(
    near_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home
) -> None:
    commit(repository, {".gitignore": "*.cache\n"})
    await near_lead.run("touch one", "touch two", "touch three")
    verify = f"ls *.cache >> {home.state}/told; touch ${{FORKJOIN_AGENTS}}.cache"
    for agent in ("a1", "a2"):
        await near_lead.call("merge_worktree", ids=[agent], verify=verify)
    assert (home.state / "told").read_text().split() == ["a1.cache"]
    assert [one.tip for one in await in_process_reconciler.store.scratch_worktrees.all()] == [
        git(repository, "rev-parse", "main")
    ]
    await near_lead.call("undo_merge")
    await near_lead.call("merge_worktree", ids=["a3"], verify=verify)
    assert (home.state / "told").read_text().split() == ["a1.cache"]


async def test_where_an_earlier_run_cannot_be_ended_another_worktree_takes_its_place(
    near_lead: Lead, in_process_reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await near_lead.run("touch one", "touch two")
    await near_lead.call("merge_worktree", ids=["a1"], verify="true")

    async def runs_in(_: object, number: int) -> list[str]:
        return ["t1-1-0-verify"] if number == 1 else []

    async def cancel(_: str, __: float) -> list[str]:
        return ["1 (init)"]

    with monkeypatch.context() as patch:
        patch.setattr("forkjoin.merge_queue.scratch.list_runs", runs_in)
        patch.setattr(in_process_reconciler.services.executor, "cancel", cancel)
        answer = await near_lead.call("merge_worktree", ids=["a2"], verify="true")
    assert ids_of(answer, "merged") == ["a2"]
    assert [(one.number, one.retired) for one in await in_process_reconciler.store.scratch_worktrees.all()] == [
        (1, True),
        (2, False),
    ]
