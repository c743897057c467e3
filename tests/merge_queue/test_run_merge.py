"""Merges of agents' branches with merge_worktree, also while a person works in the checkout."""

import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from forkjoin.core.session import NO_RIGHTS
from forkjoin.reconciler import Reconciler
from support.branches import commit, contents, everything
from support.harness import Lead, git, lead_of, open_lead, open_lead_in_memory
from support.merges import check_sound, ids_of, list_scratch_worktrees, retire_and_remove_scratches


async def merge_states(lead: Lead, *ids: str) -> list[str]:
    return [(await lead.call("get_result", id=one))["merge"] for one in ids]


# -- which branches are merged


async def test_a_conflict_is_reported_by_file_and_the_other_branches_are_merged(lead: Lead, repository: Path) -> None:
    await lead.run("echo 1 > shared.txt", "echo 2 > shared.txt; echo > two", "echo > three")
    answer = await lead.call("merge_worktree", ids=["a1", "a2", "a3"])
    assert ids_of(answer, "merged") == ["a1", "a3"]
    (conflicted,) = answer["conflicted"]
    assert (conflicted["id"], conflicted["files"]) == ("a2", ["shared.txt"])
    assert conflicted["hunks"] == ["shared.txt, line 1:\n<<<<<<<\n1\n=======\n2\n>>>>>>>"]
    assert (answer["target"], answer["commit"]) == ("main", git(repository, "rev-parse", "main"))
    assert await merge_states(lead, "a1", "a2", "a3") == ["merged", "conflicted", "merged"]
    assert sorted(contents(repository)) == ["README.md", "shared.txt", "three"]
    check_sound(repository)


async def test_verify_runs_on_the_merged_state_and_the_branch_that_breaks_it_is_rejected(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    await quick_lead.run("echo > one", "echo > two", "echo > three")
    verify = "ls; test ! -e one || test ! -e two || { echo both of them; exit 3; }"
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2", "a3"], verify=verify)
    assert ids_of(answer, "merged") == ["a1", "a3"]
    assert answer["rejected"] == [
        {"id": "a2", "why": "verify: exit 3\nREADME.md\none\nshared.txt\ntwo\nboth of them"},
    ]
    assert await merge_states(quick_lead, "a1", "a2", "a3") == ["merged", "rejected", "merged"]
    assert sorted(contents(repository)) == ["README.md", "one", "shared.txt", "three"]
    assert list_scratch_worktrees(repository, home) == ["target-1"]
    check_sound(repository)


async def test_a_dry_run_reports_the_merge_and_changes_nothing(quick_lead: Lead, repository: Path, home: Home) -> None:
    await quick_lead.run("echo 1 > shared.txt", "echo 2 > shared.txt")
    before = everything(repository)
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2"], verify=f"touch {home.state}/ran", dry_run=True)
    assert (answer["merged"], ids_of(answer, "conflicted")) == ([{"id": "a1"}], ["a2"])
    assert everything(repository) == before
    assert not (home.state / "ran").exists()
    assert await merge_states(quick_lead, "a1", "a2") == ["unmerged", "unmerged"]


async def test_a_branch_that_can_not_be_merged_is_skipped_with_the_reason(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one", "true", "echo > three; exit 3", "echo > four")
    (running,) = await quick_lead.spawn("sleep 1000")
    git(repository, "update-ref", "-d", "refs/heads/forkjoin/a4-echo-four")
    await quick_lead.call("merge_worktree", ids=["a1"])
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2", "a3", "a4", running])
    assert answer["merged"] == []
    assert answer["commit"] == git(repository, "rev-parse", "main")
    why = {one["id"]: one["why"] for one in answer["skipped"]}
    assert (why["a1"], why["a2"]) == ("merged before", "nothing: it has no commits")
    assert (why["a3"], why["a4"]) == ("it did not succeed (it is failed); see get_result", "its branch is gone")
    assert why[running].startswith("not ended yet (it is ")
    assert await merge_states(quick_lead, "a1", "a2", "a3", "a4") == ["merged", "nothing", "unmerged", "unmerged"]
    assert ids_of(await quick_lead.call("remove_worktrees", ids=["a1", "a2"]), "removed") == ["a1", "a2"]
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2"])
    assert [one["why"] for one in answer["skipped"]] == ["merged before", "nothing: it has no commits"]


async def test_a_branch_that_another_branch_contains_is_merged_with_it(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one")
    await quick_lead.run("echo > two", base="forkjoin/a1-echo-one")
    answer = await quick_lead.call("merge_worktree", ids=["a2", "a1"])
    assert ids_of(answer, "merged") == ["a2"]
    assert answer["skipped"] == [{"id": "a1", "why": "merged before"}]


async def test_a_branch_whose_change_the_target_already_has_is_merged(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo same > new")
    commit(repository, {"new": "same\n"})
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a1"]), "merged") == ["a1"]
    assert git(repository, "rev-parse", "main^2") == git(repository, "rev-parse", "forkjoin/a1-echo-same-new")


async def test_an_unrelated_history_is_rejected_and_the_other_branches_are_merged(
    quick_lead: Lead, repository: Path
) -> None:
    alone = (
        "git checkout -q --orphan alone; echo > alone; git add .; git commit -qm alone; git branch -qf $FORKJOIN_BRANCH"
    )
    await quick_lead.run(f"{alone}; git switch -q $FORKJOIN_BRANCH", "echo > two")
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2"])
    assert ids_of(answer, "merged") == ["a2"]
    assert answer["rejected"] == [
        {"id": "a1", "why": "git can't merge it: fatal: refusing to merge unrelated histories"}
    ]


async def test_an_unknown_id_refuses_the_whole_call(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one")
    before = everything(repository)
    assert "No agent 'a7'" in await quick_lead.refusal("merge_worktree", ids=["a1", "a7"])
    assert everything(repository) == before
    assert await merge_states(quick_lead, "a1") == ["unmerged"]


async def test_uncommitted_work_is_merged_byte_for_byte(quick_lead: Lead, repository: Path) -> None:
    task = (
        r"printf '\000\377\r\n' > binary; rm README.md; chmod +x shared.txt; ln -s /nowhere link; mkdir d; echo > d/x"
    )
    await quick_lead.run(task)
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a1"]), "merged") == ["a1"]
    assert contents(repository) == {
        "binary": b"\0\xff\r\n",
        "shared.txt": b"one\ntwo\nthree\n",
        "link": "/nowhere",
        "d/x": b"\n",
    }
    assert os.access(repository / "shared.txt", os.X_OK)
    check_sound(repository)


async def test_a_merge_commit_has_both_parents_and_an_author_without_user_configuration(
    quick_lead: Lead, repository: Path, user: Path
) -> None:
    (user / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    base = git(repository, "rev-parse", "main")
    await quick_lead.run("echo > one")
    [merged] = (await quick_lead.call("merge_worktree", ids=["a1"]))["merged"]
    tip = git(repository, "rev-parse", "forkjoin/a1-echo-one")
    assert git(repository, "log", "-1", "--format=%H %P %an %cn", "main") == (
        f"{merged['commit']} {base} {tip} forkjoin forkjoin"
    )
    assert git(repository, "log", "-1", "--format=%(trailers:key=Forkjoin-Agent,valueonly)", "main").strip() == "a1"


# -- verify


async def test_verify_gets_the_agents_ids_and_no_reserved_variables_of_the_lead(repository: Path, home: Home) -> None:
    async with open_lead(repository, CLAUDECODE="1", GIT_DIR="/nowhere", FORKJOIN_TOKEN="", OWN="kept") as lead:
        await lead.run("echo > one")
        answer = await lead.call(
            "merge_worktree", ids=["a1"], verify=f"env > {home.state}/env; pwd >> {home.state}/env"
        )
    assert ids_of(answer, "merged") == ["a1"]
    lines = (home.state / "env").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert found["FORKJOIN_AGENTS"] == "a1"
    assert (found["FORKJOIN_TARGET"], found["OWN"]) == ("main", "kept")
    assert (found["FORKJOIN_LANDING"], found["FORKJOIN_HOME"]) == ("1", str(home.state))
    assert found["FORKJOIN_TOKEN"] == NO_RIGHTS
    marks = ("CLAUDE", "GIT_DIR", "FORKJOIN_KEEPER")
    assert [name for name in found if name.startswith(marks)] == []
    assert lines[-1] == str(home.worktrees / "target-1")


async def test_a_retired_scratch_worktree_is_removed_with_all_files_that_verify_left(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home
) -> None:
    await quick_lead.run("echo > one", "echo > two")
    verify = (
        "mkdir -p deep/er; touch deep/er/x; chmod 500 deep/er deep; touch $(git rev-parse --git-path index.lock); "
        "rm .git; test ! -e two"
    )
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2"], verify=verify)
    assert (ids_of(answer, "merged"), ids_of(answer, "rejected")) == (["a1"], ["a2"])
    await retire_and_remove_scratches(in_process_reconciler)
    assert list_scratch_worktrees(repository, home) == []


async def test_a_commit_made_while_verify_runs_is_kept(quick_lead: Lead, repository: Path, home: Home) -> None:
    await quick_lead.run("echo > one")
    person = f"git -C {repository} commit -q --allow-empty -m person"
    verify = f"env -u GIT_DIR -u GIT_WORK_TREE true; if mkdir {home.state}/once; then {person}; fi"
    answer = await quick_lead.call("merge_worktree", ids=["a1"], verify=verify)
    assert ids_of(answer, "merged") == ["a1"]
    assert git(repository, "log", "--first-parent", "--format=%s", "main").splitlines() == [
        *("Merge a1 (echo-one)", "person", "first")
    ]
    check_sound(repository)


@pytest.mark.parametrize("away", [True, False])
async def test_a_checkout_switched_while_verify_runs_is_moved_only_if_it_is_on_the_target(
    quick_lead: Lead, repository: Path, away: bool
) -> None:
    git(repository, "branch", "side")
    if not away:
        git(repository, "switch", "-q", "side")
    await quick_lead.run("echo > one")
    verify = f"git -C {repository} switch -q {'side' if away else 'main'}"
    answer = await quick_lead.call("merge_worktree", ids=["a1"], into="main", verify=verify)
    assert ids_of(answer, "merged") == ["a1"]
    assert (repository / "one").exists() is not away
    assert git(repository, "show", "main:one") == ""
    check_sound(repository)


async def test_a_cherry_pick_under_way_refuses_the_merge_before_verify_runs(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    await quick_lead.run("echo > one")
    (repository / ".git" / "CHERRY_PICK_HEAD").write_text(git(repository, "rev-parse", "HEAD"))
    refusal = await quick_lead.refusal("merge_worktree", ids=["a1"], verify=f"touch {home.state}/ran")
    assert "a cherry-pick is in progress in" in refusal
    assert not (home.state / "ran").exists()
    assert await merge_states(quick_lead, "a1") == ["unmerged"]


# -- the target


async def test_only_the_branch_named_in_into_is_moved(quick_lead: Lead, repository: Path) -> None:
    git(repository, "branch", "release/1")
    await quick_lead.run("echo > one", "echo > two")
    before = everything(repository)
    for agent, into in (("a1", "release/1"), ("a2", "refs/heads/release/1")):
        answer = await quick_lead.call("merge_worktree", ids=[agent], into=into)
        assert (ids_of(answer, "merged"), answer["target"]) == ([agent], "release/1")
    assert git(repository, "rev-parse", "release/1") == answer["commit"]
    after = everything(repository)
    assert (after["index"], after["files"], after["HEAD"]) == (before["index"], before["files"], before["HEAD"])
    assert git(repository, "rev-parse", "main") == git(repository, "rev-parse", "release/1~2")


async def test_an_into_that_is_no_branch_is_refused(quick_lead: Lead, repository: Path) -> None:
    git(repository, "tag", "v1")
    await quick_lead.run("echo > one")
    before = everything(repository)
    for into in ("none", "-b", "--detach", "HEAD", "main~1", "v1", "a..b", "a\0b", "é" * 9999, ""):
        assert "into: there is no branch" in await quick_lead.refusal("merge_worktree", ids=["a1"], into=into)
    assert everything(repository) == before


async def test_a_merge_into_a_symbolic_branch_moves_the_branch_behind_it(quick_lead: Lead, repository: Path) -> None:
    git(repository, "symbolic-ref", "refs/heads/master", "refs/heads/main")
    await quick_lead.run("echo > one")
    answer = await quick_lead.call("merge_worktree", ids=["a1"], into="master")
    assert answer["target"] == "main"
    assert git(repository, "symbolic-ref", "refs/heads/master") == "refs/heads/main"
    assert (repository / "one").exists()
    check_sound(repository)


async def test_a_detached_head_needs_a_branch_to_be_named(quick_lead: Lead, repository: Path) -> None:
    await quick_lead.run("echo > one")
    git(repository, "switch", "-q", "--detach")
    assert "HEAD is detached here" in await quick_lead.refusal("merge_worktree", ids=["a1"])
    answer = await quick_lead.call("merge_worktree", ids=["a1"], into="main")
    assert ids_of(answer, "merged") == ["a1"]
    assert not (repository / "one").exists()
    check_sound(repository)


async def test_a_target_deleted_while_verify_runs_is_not_created_again(quick_lead: Lead, repository: Path) -> None:
    git(repository, "branch", "side")
    await quick_lead.run("echo > one")
    delete = f"git -C {repository} branch -qD side"
    assert "The branch side no longer exists" in await quick_lead.refusal(
        "merge_worktree", ids=["a1"], into="side", verify=delete
    )
    assert git(repository, "branch", "--list", "side") == ""


async def test_branches_are_merged_in_a_bare_repository(repository: Path, home: Home, tmp_path: Path) -> None:
    git(repository, "clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    async with open_lead_in_memory(home, tmp_path / "bare.git") as lead:
        await lead.run("echo > one", "echo > two")
        answer = await lead.call("merge_worktree", ids=["a1", "a2"], verify="test -e one")
        assert ids_of(answer, "merged") == ["a1", "a2"]
        assert git(tmp_path / "bare.git", "ls-tree", "--name-only", "main", "two") == "two"
        await lead.call("remove_worktrees", ids=["a1", "a2"])
    assert git(tmp_path / "bare.git", "for-each-ref", "--format=%(refname)") == "refs/heads/main"


async def test_agents_can_be_merged_in_a_repository_with_a_branch_called_forkjoin(
    quick_lead: Lead, repository: Path
) -> None:
    git(repository, "branch", "forkjoin")
    await quick_lead.run("echo > one")
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a1"]), "merged") == ["a1"]
    branches = git(repository, "branch", "--list", "--format=%(refname:short)").splitlines()
    assert branches == ["forkjoin", "forkjoin-a1-echo-one", "main"]


async def test_a_dry_run_works_with_a_read_only_git_folder(
    quick_lead: Lead, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quick_lead.run("echo > one")

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(file_lock, "take", refuse)
    answer = await quick_lead.call("merge_worktree", ids=["a1"], dry_run=True)
    assert ids_of(answer, "merged") == ["a1"]


async def test_a_persons_changes_and_stash_are_kept_or_reported_as_in_the_way(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    (repository / "shared.txt").write_text("stashed\n")
    git(repository, "stash", "push", "-q")
    (repository / ".git" / "info" / "exclude").write_text(".env\n")
    await quick_lead.run(
        "echo theirs > shared.txt", "echo theirs > .env; git add -f .env; git commit -qm env", "echo > three"
    )
    (repository / "shared.txt").write_text("mine\n")
    (repository / ".env").write_text("my secret\n")
    but_scratch = dict.fromkeys(("list", "worktrees"))
    before = everything(repository) | but_scratch
    for agent, path in (("a1", "shared.txt"), ("a2", ".env")):
        refusal = await quick_lead.refusal("merge_worktree", ids=[agent], verify="true")
        assert f"These files in {repository} are in the way: {path}. Nothing was merged" in refusal
        assert everything(repository) | but_scratch == before
    assert await merge_states(quick_lead, "a1", "a2") == ["unmerged", "unmerged"]
    assert list_scratch_worktrees(repository, home) == ["target-1"]
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a3"]), "merged") == ["a3"]
    assert git(repository, "status", "--porcelain") == " M shared.txt"
    assert git(repository, "stash", "list") == before["stash"]
    assert (repository / ".env").read_text() == "my secret\n"


# -- concurrent merges


async def test_eight_concurrent_merges_by_two_leads_are_each_done_once(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    async with lead_of(in_process_reconciler, repository, "two") as two:
        ids = await quick_lead.run(*(f"echo {number} > file{number}" for number in range(8)))
        answers: list[dict[str, Any]] = []

        async def merge(lead: Lead, agent: str) -> None:
            answers.append(await lead.call("merge_worktree", ids=[agent]))

        for again in (False, True):
            async with anyio.create_task_group() as tasks:
                for number, agent in enumerate(ids):
                    tasks.start_soon(merge, (quick_lead, two)[number % 2], agent)
            merged = sorted(agent for answer in answers for agent in ids_of(answer, "merged"))
            assert merged == sorted(ids)
            skipped = [one["why"] for answer in answers for one in answer["skipped"]]
            assert skipped == (["merged before"] * 8 if again else [])
        assert await merge_states(quick_lead, *ids) == ["merged"] * 8
    assert len([name for name in contents(repository) if name.startswith("file")]) == 8
    check_sound(repository)
