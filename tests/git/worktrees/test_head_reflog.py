"""The reflog of HEAD: abandoned commits are kept, and moves of the branch by others are reported."""

import subprocess
from pathlib import Path

import pytest
from forkjoin.git.worktrees.head_reflog import keep_abandoned_commits
from support.autocommits import leave
from support.branches import GIT_VERSION, Fork, commit, make_fork, put_counting_git
from support.harness import git

KEPT = "refs/forkjoin/kept/left/a1-left"


def kept_refs(fork: Fork) -> list[str]:
    return git(fork.repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/left/").split()


async def keep_twice(fork: Fork) -> list[str]:
    """Keep abandoned commits, twice. Return the subjects of the kept commits."""
    for _ in range(2):
        await keep_abandoned_commits(fork.common_dir, fork.path, fork.branch, (await leave(fork)).tip, "a1-left")
    if not (refs := kept_refs(fork)):
        return []
    assert refs == [KEPT]
    return sorted(git(fork.repository, "log", "--format=%s", KEPT, "--not", fork.base, fork.branch).splitlines())


@pytest.mark.parametrize("where", ["branch", "detached"])
async def test_a_commit_abandoned_by_a_reset_is_kept(fork: Fork, where: str) -> None:
    if where == "detached":
        git(fork.path, "switch", "-q", "--detach")
    tip = commit(fork.path, {"x": "x"})
    git(fork.path, "reset", "-q", "--hard", "HEAD~1")
    assert await keep_twice(fork) == ["work"]
    assert git(fork.repository, "rev-parse", KEPT) == tip


async def test_one_ref_keeps_all_commits_abandoned_by_amends_and_a_rebase(fork: Fork) -> None:
    commit(fork.path, {"x": "x"}, "one")
    git(fork.path, "commit", "-q", "--amend", "-m", "one again")
    commit(fork.path, {"y": "y"}, "two")
    git(fork.path, "reset", "-q", "--hard", "HEAD~2")
    commit(fork.path, {"z": "z"}, "three")
    commit(fork.path, {"a": "a"}, "four")
    git(fork.repository, "commit", "-q", "--allow-empty", "-m", "main goes on")
    git(fork.path, "rebase", "-q", "main")
    assert await keep_twice(fork) == sorted(
        ["Commits that were on no branch", "four", "one", "one again", "three", "two"]
    )


async def test_commits_of_a_deleted_branch_are_kept(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "-c", "try")
    commit(fork.path, {"x": "x"})
    git(fork.path, "switch", "-q", fork.branch)
    git(fork.path, "branch", "-q", "-D", "try")
    assert await keep_twice(fork) == ["work"]


@pytest.mark.skipif(GIT_VERSION < (2, 46), reason="git has no reftables")
@pytest.mark.usefixtures("user")
async def test_an_abandoned_commit_is_kept_in_a_repository_with_reftables(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    git(tmp_path, "init", "-q", "--ref-format=reftable", str(repository))
    commit(repository, {"shared.txt": "one\n"})
    fork = await make_fork(repository)
    tip = commit(fork.path, {"x": "x"})
    git(fork.path, "reset", "-q", "--hard", "HEAD~1")
    assert await keep_twice(fork) == ["work"]
    assert git(repository, "rev-parse", KEPT) == tip


async def test_an_abandoned_commit_is_kept_if_head_has_no_reflog(repository: Path) -> None:
    git(repository, "config", "core.logAllRefUpdates", "false")
    fork = await make_fork(repository)
    tip = commit(fork.path, {"x": "x"})
    git(fork.path, "reset", "-q", "--hard", "HEAD~1")
    assert await keep_twice(fork) == ["work"]
    assert git(repository, "rev-parse", KEPT) == tip


async def test_no_git_call_is_made_for_an_agent_that_only_committed(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(fork.path, {"x": "x"})
    commit(fork.path, {"y": "y"})
    (fork.path / "loose").touch()
    left = await leave(fork)
    log = put_counting_git(tmp_path / "bin", monkeypatch)
    await keep_abandoned_commits(fork.common_dir, fork.path, fork.branch, left.tip, "a1-left")
    assert log.read_text() == ""


async def test_a_commit_on_a_branch_is_not_kept_again(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "-c", "topic")
    commit(fork.path, {"x": "x"})
    git(fork.path, "switch", "-q", fork.branch)
    git(fork.path, "reset", "-q", "--hard", "topic")
    assert await keep_twice(fork) == []


async def test_unreadable_commits_on_no_branch_are_reported(fork: Fork) -> None:
    git(fork.path, "switch", "-q", "--detach")
    first = commit(fork.path, {"x": "x"})
    commit(fork.path, {"y": "y"})
    git(fork.path, "switch", "-q", fork.branch)
    Path(fork.common_dir, "objects", first[:2], first[2:]).unlink()
    (warning,) = (await leave(fork)).warnings
    assert warning.startswith("Commits that the agent made on no branch can't be read: ")


# -- moves by others

LEAD = ["symbolic-ref", "HEAD"], ["checkout", "-q", "--ignore-other-worktrees"]


def move_warnings(warnings: list[str]) -> list[str]:
    return [one for one in warnings if "moved from outside" in one]


async def check_out_branch_of(fork: Fork, how: list[str]) -> Fork:
    """Make another agent's worktree, and put its HEAD on the branch of `fork`."""
    other = await make_fork(fork.repository, "a2-other")
    git(other.path, *how, f"refs/heads/{fork.branch}" if "symbolic-ref" in how else fork.branch)
    return other


@pytest.mark.parametrize("how", LEAD, ids=["symbolic", "checkout"])
async def test_a_move_by_another_agent_is_reported_after_further_commits(fork: Fork, how: list[str]) -> None:
    other = await check_out_branch_of(fork, how)
    before = commit(fork.path, {"x": "x"})
    git(other.path, "reset", "-q", "--hard")
    theirs = commit(other.path, {"y": "y"})
    git(fork.path, "reset", "-q", "--hard")
    commit(fork.path, {"z": "z"})
    (warning,) = move_warnings((await leave(fork)).warnings)
    assert f"Its branch {fork.branch} was" in warning
    assert f"from {before[:12]} to {theirs[:12]}: look at both" in warning
    git(fork.path, "switch", "-q", "--detach")
    assert move_warnings((await leave(fork)).warnings)


async def test_a_commit_that_another_agent_removed_from_the_branch_is_kept(fork: Fork) -> None:
    other = await check_out_branch_of(fork, LEAD[0])
    mine = commit(fork.path, {"x": "x"})
    git(other.path, "reset", "-q", "--hard", "HEAD~1")
    git(fork.path, "reset", "-q", "--hard")
    commit(fork.path, {"z": "z"})
    assert await keep_twice(fork) == ["work"]
    assert git(fork.repository, "rev-parse", KEPT) == mine


async def test_a_direct_write_to_the_ref_file_is_reported(fork: Fork) -> None:
    commit(fork.path, {"x": "x"})
    Path(fork.common_dir, "refs", "heads", fork.branch).write_text(f"{fork.base}\n")
    assert move_warnings((await leave(fork)).warnings)


async def test_a_branch_deleted_while_the_agent_ran_is_reported(fork: Fork) -> None:
    before = commit(fork.path, {"x": "x"})
    git(fork.repository, "update-ref", "-d", f"refs/heads/{fork.branch}")
    commit(fork.path, {"y": "y"})
    (warning,) = (await leave(fork)).warnings
    assert warning.startswith(f"Its branch {fork.branch} was deleted at {before[:12]} while it ran: ")


async def test_an_orphan_branch_of_the_agent_does_not_count_as_a_deletion(fork: Fork) -> None:
    commit(fork.path, {"x": "x"})
    git(fork.path, "switch", "-q", "--orphan", "o")
    commit(fork.path, {"y": "y"})
    git(fork.path, "switch", "-q", fork.branch)
    commit(fork.path, {"z": "z"})
    assert (await leave(fork)).warnings == []


#: Commands that leave gaps in HEAD's reflog, or moves in the branch's reflog that HEAD's reflog doesn't have.
OWN_COMMANDS = {
    "expired": "git commit -q --amend -m again; git reflog expire --expire-unreachable=now --all; "
    "git gc -q --prune=now",
    "all expired": "git reflog expire --expire=now --all; git commit -q --allow-empty -m on",
    "amended and gone on": "git commit -q --amend -m again; git reflog expire --expire-unreachable=now --all; "
    "git commit -q --allow-empty -m on",
    "no log": "git config core.logAllRefUpdates false; git commit -q --allow-empty -m on",
    "no log at all": 'rm "$(git rev-parse --git-path logs/HEAD)"; git config core.logAllRefUpdates false; '
    "git commit -q --allow-empty -m on",
    "rebased": "git rebase -q --force-rebase --onto main~1 main; git commit -q --allow-empty -m on",
    "rebase aborted": "git rebase -q --exec false --force-rebase main~1; git rebase --abort; "
    "git commit -q --allow-empty -m on",
    "renamed": "git branch -m tmp; git branch -m {branch}; git commit -q --allow-empty -m on",
    "led elsewhere": "git branch topic main; git symbolic-ref HEAD refs/heads/topic; git reset -q --hard; "
    "git commit -q --allow-empty -m there; git symbolic-ref HEAD refs/heads/{branch}; git reset -q --hard; "
    "git commit -q --allow-empty -m on",
    "moved while detached": "git switch -q --detach; git commit -q --allow-empty -m there; git branch -f {branch}; "
    "git switch -q {branch}; git commit -q --allow-empty -m on",
    "fetched into": "git fetch -q --update-head-ok . +main:{branch}; git reset -q --hard; "
    "git commit -q --allow-empty -m on",
    "fetched into while detached": "git switch -q --detach; git fetch -q . +main:{branch}; git switch -q {branch}; "
    "git commit -q --allow-empty -m on",
    "deleted": "git update-ref -d HEAD; git commit -q --allow-empty -m on",
    "orphan": "git switch -q --orphan o; git commit -q --allow-empty -m there; git switch -q {branch}; "
    "git commit -q --allow-empty -m on",
    "merged and squashed": "git switch -q -c t; git commit -q --allow-empty -m there; git switch -q {branch}; "
    "git merge -q --squash t; git merge -q --no-ff -m m t; git reset -q --hard HEAD~1; git merge -q t",
    "bisected and stashed": "git bisect start HEAD main~1; git bisect reset; echo > new; git stash -q -u; "
    "git stash pop -q",
}


@pytest.mark.parametrize("script", OWN_COMMANDS.values(), ids=OWN_COMMANDS)
async def test_the_agents_own_git_commands_do_not_count_as_moves_by_others(repository: Path, script: str) -> None:
    git(repository, "commit", "-q", "--allow-empty", "-m", "base")
    fork = await make_fork(repository)
    commit(fork.path, {"x": "x"}, "one")
    for line in script.format(branch=fork.branch).split("; "):
        run(fork, line)
    assert move_warnings((await leave(fork)).warnings) == []
    commit(fork.path, {"y": "y"}, "in a later attempt")
    assert move_warnings((await leave(fork)).warnings) == []


def run(fork: Fork, line: str) -> None:
    """Run a command line, which may fail, in the worktree."""
    subprocess.run(["sh", "-c", line], cwd=fork.path, check=False)
