"""Reuse of a target's scratch worktree: its caches stay for the next merge, other files of a run do not."""

import os
from pathlib import Path

import pytest
from forkjoin.app import open_reconciler
from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.git.worktrees import files_shared_from_checkout
from forkjoin.merge_queue.report import MERGE_REPORT
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.merge_queue.scratch import ScratchVerifier
from forkjoin.reconciler import Reconciler
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.scratch_worktrees import ScratchWorktree
from support.branches import commit
from support.harness import Lead, git
from support.merges import (
    carry_to_its_end,
    ids_of,
    list_scratch_worktrees,
    open_daemon,
    record_branches,
    record_merge_job,
    run_job_in_subprocess,
)
from support.repository_configs import put_dependencies, want


async def merge_each(lead: Lead, verify: str, *tasks: str) -> list[dict[str, object]]:
    """Run agents with these tasks, and merge each in a call. Return the answers."""
    ids = await lead.run(*tasks)
    return [await lead.call("merge_worktree", ids=[one], verify=verify) for one in ids]


async def test_the_next_merge_finds_ignored_files_and_the_same_path_and_ports(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    commit(repository, {".gitignore": "deps\n"})
    want(repository, home, f"setup = 'test -e deps || {{ touch deps; echo installed >> {home.state}/log; }}'\n")
    records = f'test -e deps && echo "$PWD $FORKJOIN_SLUG $FORKJOIN_PORT_BASE" >> {home.state}/output'
    answers = await merge_each(quick_lead, records, "echo > one", "echo > two")
    assert [ids_of(answer, "merged") for answer in answers] == [["a1"], ["a2"]]
    first, second = (home.state / "output").read_text().splitlines()
    assert first == second
    assert first.startswith(f"{home.worktrees}/target-1 fj-")
    assert first.split()[1].endswith("-t1")
    assert (home.state / "log").read_text().split() == ["installed"]
    assert list_scratch_worktrees(repository, home) == ["target-1"]


async def test_each_target_has_its_own_scratch_worktree(quick_lead: Lead, repository: Path, home: Home) -> None:
    git(repository, "branch", "side")
    (one,) = await quick_lead.run("echo > one")
    for target in ("main", "side", "main"):
        await quick_lead.call("merge_worktree", ids=[one], into=target, verify="true")
    assert list_scratch_worktrees(repository, home) == ["target-1", "target-2"]


WRECKS = {
    "files": "echo edited > shared.txt; rm README.md; touch new; mkdir deep; touch deep/er; chmod 500 deep",
    "git": "echo edited > shared.txt; touch new; rm .git",
    "pipes": "rm .gitignore shared.txt; mkfifo .gitignore shared.txt .gitattributes; touch new",
    "lock": "touch new; touch $(git rev-parse --git-path index.lock)",
    "folder": "touch new; rm -rf $PWD",
}


@pytest.mark.parametrize("wreck", WRECKS.values(), ids=WRECKS)
async def test_changes_that_verify_leaves_do_not_reach_the_next_merge(
    quick_lead: Lead, repository: Path, wreck: str
) -> None:
    commit(repository, {".gitignore": "*.cache\n"})
    looks = "test -f README.md && test -f .gitignore && test ! -e new && test ! -e deep && grep one shared.txt"
    answers = await merge_each(quick_lead, f"{looks} && {{ {wreck}; true; }}", "echo > one", "echo > two")
    assert [answer["rejected"] for answer in answers] == [[], []]


async def test_a_branch_that_verify_switches_to_can_be_checked_out_afterwards(
    quick_lead: Lead, repository: Path
) -> None:
    git(repository, "branch", "side")
    ids = await quick_lead.run("echo > one")
    answer = await quick_lead.call("merge_worktree", ids=ids, verify="git switch -q side; rm .git")
    assert ids_of(answer, "merged") == ids
    git(repository, "switch", "-q", "side")


async def test_a_second_merge_of_the_same_commit_finds_no_files_of_the_first(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    ids = await quick_lead.run("echo > one")
    in_process_reconciler.store.database.connection.execute(
        "CREATE TRIGGER at_once AFTER INSERT ON landing BEGIN UPDATE landing SET created = 1; END"
    )
    (repository / "one").write_text("in the way\n")
    await quick_lead.refusal("merge_worktree", ids=ids, verify="touch left")
    (repository / "one").unlink()
    answer = await quick_lead.call("merge_worktree", ids=ids, verify="test ! -e left")
    assert ids_of(answer, "merged") == ids


async def test_an_ignored_file_that_changed_in_the_checkout_is_copied_again(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    commit(repository, {".worktreeinclude": ".env\n", ".gitignore": ".env\n"})
    ids = await quick_lead.run("echo > one", "echo > two", "echo > three")
    for one, secret in zip(ids, ("first", "second, and longer", ""), strict=True):
        (repository / ".env").write_text(secret)
        verify = f"cat .env >> {home.state}/output; echo . >> {home.state}/output; ln -sf /nowhere .env"
        await quick_lead.call("merge_worktree", ids=[one], verify=verify)
    assert (home.state / "output").read_text() == "first.\nsecond, and longer.\n.\n"


async def test_a_folder_shared_as_a_copy_is_copied_again_after_a_change(
    quick_lead: Lead, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_shared_from_checkout, "_LAG_S", 0.0)
    pad = put_dependencies(repository, "node_modules") / "left-pad" / "index.js"
    (repository.parent / "old" / "left-pad").mkdir(parents=True)
    (repository.parent / "old" / "left-pad" / "index.js").write_text("old\n")
    want(repository, home, "[share]\nnode_modules = 'copy'\n")
    ids = await quick_lead.run(*(f"echo > {number}" for number in range(4)))
    for number, one in enumerate(ids):
        if number == 2:
            pad.write_text("new\n")
            os.utime(pad, (0, 0))
        if number == 3:
            (repository / "node_modules").rename(repository.parent / "real")
            (repository / "node_modules").symlink_to("../old")
        records = f"ls node_modules >> {home.state}/output; cat node_modules/left-pad/index.js >> {home.state}/output"
        answer = await quick_lead.call(
            "merge_worktree", ids=[one], verify=f"{records}; touch node_modules/built-{number}"
        )
        assert ids_of(answer, "merged") == [one]
    output = (home.state / "output").read_text().split()
    assert output == ["left-pad", "pad", "built-0", "left-pad", "pad", "left-pad", "new", "left-pad", "old"]


async def test_a_scratch_worktree_that_can_not_be_checked_out_is_replaced(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = ScratchVerifier._check_out

    async def refuse(self: ScratchVerifier, scratch: ScratchWorktree, commit: str) -> None:
        if scratch.number == 1 and (home.worktrees / "target-1").exists():
            raise PermissionError(13, "Permission denied")
        await switch(self, scratch, commit)

    monkeypatch.setattr(ScratchVerifier, "_check_out", refuse)
    answers = await merge_each(quick_lead, "true", "echo > one", "echo > two", "echo > three")
    assert [ids_of(answer, "merged") for answer in answers] == [["a1"], ["a2"], ["a3"]]
    assert [(one.number, one.retired) for one in await in_process_reconciler.store.scratch_worktrees.all()] == [
        (1, True),
        (2, False),
    ]


async def test_a_merge_fails_if_each_verify_leaves_files_that_can_not_be_deleted(
    quick_lead: Lead, in_process_reconciler: Reconciler, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = ScratchVerifier._check_out

    async def refuse(self: ScratchVerifier, scratch: ScratchWorktree, commit: str) -> None:
        if (home.worktrees / f"target-{scratch.number}").exists():
            raise PermissionError(13, "Permission denied", "root's")
        await switch(self, scratch, commit)

    monkeypatch.setattr(ScratchVerifier, "_check_out", refuse)
    ids = await quick_lead.run("echo > one", "echo > two", "echo > three", "echo > four")
    refused = await quick_lead.refusal("merge_worktree", ids=ids, verify="false")
    assert f"verify ran in {home.worktrees}/target-2" in refused
    assert 'Permission denied: "root\'s". Nothing was merged' in refused
    assert [one.number for one in await in_process_reconciler.store.scratch_worktrees.all()] == [1, 2]


async def test_a_branch_that_git_can_not_check_out_is_rejected_and_the_others_are_merged(
    quick_lead: Lead, repository: Path
) -> None:
    git(repository, "config", "filter.gone.smudge", "echo gone >&2; false")
    git(repository, "config", "filter.gone.clean", "cat")
    git(repository, "config", "filter.gone.required", "true")
    good, bad, better = await quick_lead.run(
        "echo > one", "echo x > two; echo 'two filter=gone' > .gitattributes", "echo > three"
    )
    answer = await quick_lead.call("merge_worktree", ids=[good, bad, better], verify="true")
    assert ids_of(answer, "merged") == [good, better]
    assert [(one["id"], one["why"][:35]) for one in answer["rejected"]] == [
        (bad, "git can't check this commit out: fa")
    ]


async def test_verify_is_not_repeated_if_the_daemon_dies_after_recording_its_result(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await record_merge_job(home, repository, {"one": "x\n"}, f"echo run >> {home.state}/log")
    async with open_daemon(home) as reconciler:
        record, commits = reconciler.store.merges.set_verify_failure, list[str]()

        async def record_and_die(job: int, commit: str, why: str) -> None:
            commits.append(commit)
            await record(job, commit, why)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(reconciler.store.merges, "set_verify_failure", record_and_die)
            with pytest.raises(KeyboardInterrupt):
                await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
        assert await reconciler.store.merges.verify_failure(number, commits[0]) == ""
        report = await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)
        assert [one.id for one in report.merged] == ["a1"]
        assert await reconciler.store.merges.verify_failure(number, commits[0]) is None
    assert (home.state / "log").read_text() == "run\n"
    assert list_scratch_worktrees(repository, home) == ["target-1"]


async def test_no_verify_run_is_repeated_though_the_daemon_is_killed_in_each_of_them(
    repository: Path, home: Home
) -> None:
    names = [f"b{number}" for number in range(8)]
    base = git(repository, "rev-parse", "main")
    for name in names:
        git(repository, "switch", "-q", "-c", name, base)
        commit(repository, {name: "x\n"})
    git(repository, "switch", "-q", "main")
    log, killed = home.state / "log", home.state / "killed"
    kills = f"mkdir {killed}-$(git rev-parse HEAD) && kill -9 $DAEMON"
    verify = f"git rev-parse HEAD >> {log}; {kills}; test ! -e b4"
    held = file_lock.take(home.daemon_lock)  # so that no shim starts a daemon
    assert held is not None
    try:
        async with open_reconciler(home) as reconciler:
            numbers = await record_branches(reconciler.store, repository, names, base)
            new = NewMergeJob(1, "lead", tuple(numbers), "refs/heads/main", verify, False, "")
            number = (await reconciler.store.merges.add(new, Call("", ""))).number
        deaths = 0
        while run_job_in_subprocess(number, os.environ):
            deaths += 1
        async with open_reconciler(home) as reconciler:
            report = MERGE_REPORT.validate_json((await reconciler.store.merges.get(number)).answer or "")
    finally:
        os.close(held)
    assert [one.id for one in report.rejected] == ["a5"]
    assert len(report.merged) == 7
    runs = log.read_text().split()
    assert len(runs) == len(set(runs)) == deaths
    assert len(runs) >= 5
    assert list_scratch_worktrees(repository, home) == ["target-1"]
