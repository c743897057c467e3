"""Removing agents, and removals that are refused without any change."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.git.unsaved import unsaved_work
from support.branches import blob
from support.harness import Lead, git, open_lead_in_memory
from support.removals import refused, worktree_path_of


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


async def test_work_that_a_person_merged_by_hand_counts_as_merged(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    git(repository, "merge", "-q", "--ff-only", branch)
    assert (await near.call("remove_worktrees", ids=[first]))["removed"] == [{"id": first, "name": "echo-x-x-txt"}]
    assert git(repository, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


async def test_work_counts_as_unmerged_if_the_target_was_reset(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    await near.call("merge_worktree", ids=[first])
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:x.txt") == "x"


async def test_an_agent_that_builds_on_another_doesnt_make_it_merged(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    await near.run("echo y > y.txt", base=branch)
    git(repository, "symbolic-ref", "refs/heads/alias", f"refs/heads/{branch}")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)


async def test_commits_made_after_an_agents_end_are_unmerged_work(near: Lead, repository: Path, home: Home) -> None:
    (first,) = await near.run("true")
    git(worktree_path_of(home, first), "commit", "-q", "--allow-empty", "-m", "later")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)


async def test_an_agent_that_ended_in_a_rebase_of_its_own_branch_is_removed(near: Lead, repository: Path) -> None:
    script = """
        echo ours > README.md; git commit -qam ours
        git switch -q --detach HEAD~1; echo theirs > README.md; git commit -qam theirs
        git switch -q -; git rebase -q -"""
    (first,) = await near.run(f"{script} || true")
    await refused(near, repository, "Unmerged work: a1", first, discard=False)
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:README.md") == "ours"
    assert "theirs" in git(repository, "log", "--format=%s", "--glob=refs/forkjoin/kept")


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
async def test_changes_hidden_from_git_are_kept(near: Lead, repository: Path, flag: str) -> None:
    (first,) = await near.run(f"git update-index {flag} README.md; echo mine > README.md")
    await refused(near, repository, "README.md (git was told not to see its changes)", first, discard=False)
    await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested")
    assert b"mine" in blob(repository, kept, "files.tar")


async def test_a_change_of_equal_length_that_configuration_hides_is_committed(near: Lead, repository: Path) -> None:
    script = """
        git config core.checkStat minimal; git config core.trustctime false; git update-index --refresh -q
        old=$(stat -c %y README.md); tr a-z b-za < README.md > /tmp/$$; cat /tmp/$$ > README.md; rm /tmp/$$
        touch -d "$old" README.md"""
    (first,) = await near.run(script)
    assert (await near.call("get_result", id=first))["files_changed"] == 1


_INNER = "git init -q inner; git -C inner commit -q --allow-empty -m own; git init -q unborn"


_SAYS = "a2 (git-init-q-inner-git-c-inner): its worktree has work that is nowhere else: inner (1 commit)"


async def test_a_nested_repository_prevents_a_removal(near: Lead, repository: Path, home: Home) -> None:
    (second,) = await near.run("true")
    (first,) = await near.run(_INNER)
    assert "inner (1 commit)" in " ".join((await near.call("get_result", id=first))["warnings"])
    await refused(near, repository, _SAYS, second, first, discard=False)
    (worktree_path_of(home, first) / "inner").rename(home.state / "moved away")
    assert "warnings" not in await near.call("remove_worktrees", ids=[second, first])


async def test_a_discarded_nested_repository_is_archived(near: Lead, repository: Path, home: Home) -> None:
    (first,) = await near.run("echo '.claude/' > .gitignore; git init -q .claude/x; echo x > .claude/x/loose")
    await near.call("merge_worktree", ids=[first])
    await refused(near, repository, ".claude/x (1 uncommitted path)", first, discard=False)
    answer = await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    (warning,) = answer["warnings"]
    (ref,) = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested").splitlines()
    assert ref in warning
    command = warning.partition("This restores it: ")[2]
    subprocess.run(["sh", "-ec", command], cwd=repository.parent, check=True)
    assert (worktree_path_of(home, first) / ".claude" / "x" / "loose").read_text() == "x\n"
    assert not (repository.parent / worktree_path_of(home, first).name).exists()
    assert "kept_as" not in answer["removed"][0]
    assert b".claude/x/loose" in blob(repository, ref, "files.tar")


async def test_a_nested_repository_created_during_a_removal_prevents_it(near: Lead, home: Home) -> None:
    (first,) = await near.run("true")
    inner = worktree_path_of(home, first) / "inner"
    calls = list[Path]()
    really = unsaved_work.find_unsaved_work

    async def find(common_dir: str, path: Path, base: str) -> list[unsaved_work.UnsavedWork]:
        if calls:
            git(path, "init", "-q", "inner")
            (inner / "late").touch()
        calls.append(path)
        return await really(common_dir, path, base)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(unsaved_work, "find_unsaved_work", find)
        message = await near.refusal("remove_worktrees", ids=[first])
    assert "inner (1 uncommitted path)" in message
    assert inner.exists()


async def test_a_locked_worktree_is_refused_until_it_is_unlocked(near: Lead, repository: Path, home: Home) -> None:
    (first,) = await near.run("true")
    git(repository, "worktree", "lock", str(worktree_path_of(home, first)))
    await refused(near, repository, "its worktree is locked. Unlock it first: git worktree unlock", first)
    git(repository, "worktree", "unlock", str(worktree_path_of(home, first)))
    await near.call("remove_worktrees", ids=[first])


async def test_removal_keeps_a_branch_that_a_person_has_checked_out(
    near: Lead, repository: Path, tmp_path: Path
) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    git(repository, "worktree", "add", "-q", "--force", str(tmp_path / "mine"), branch)
    await refused(near, repository, "is checked out", first)


async def test_a_removal_is_refused_if_commits_are_missing(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    tip = git(repository, "rev-parse", branch)
    Path(repository, ".git", "objects", tip[:2], tip[2:]).unlink()
    message = await near.refusal("remove_worktrees", ids=[first], discard_unmerged=True)
    assert "git can't tell whether its work is merged" in message
    assert (repository / ".git" / "refs" / "heads" / branch).exists()


async def test_removing_an_agent_without_a_branch_keeps_the_commit_of_its_result(near: Lead, repository: Path) -> None:
    (first,) = await near.run("echo x > x.txt")
    branch = (await near.call("get_result", id=first))["branch"]
    git(repository, "update-ref", "-d", f"refs/heads/{branch}")
    await refused(near, repository, "Unmerged work", first, discard=False)
    kept = (await near.call("remove_worktrees", ids=[first], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "show", f"{kept}:x.txt") == "x"


async def test_agents_of_a_repository_that_is_gone_can_be_removed_once_that_is_known(
    near: Lead, repository: Path, home: Home
) -> None:
    (first,) = await near.run("echo x > x.txt")
    shutil.rmtree(repository / ".git")
    git(repository, "init", "-q")
    git(repository, "commit", "-q", "--allow-empty", "-m", "again")
    await refused(near, repository, "its repository is gone, with everything that it committed", first, discard=False)
    assert (worktree_path_of(home, first) / "x.txt").exists()
    answer = await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    assert answer["removed"] == [{"id": first, "name": "echo-x-x-txt"}]
    assert list(home.worktrees.glob("*/*")) == []
    assert (await near.call("list_agents"))["agents"] == []
    assert await near.call("remove_worktrees", ids=[first]) == answer
    await near.run("echo y > y.txt")
