"""Refs that changed while an agent ran, and branches that it left checked out."""

from pathlib import Path

import pytest
from support.branches import commit, files_of
from support.harness import Lead, git


def warnings_of(result: dict[str, list[str]], part: str) -> list[str]:
    return [warning for warning in result["warnings"] if part in warning]


CHANGED = "refs other than its own changed"


async def run(lead: Lead, script: str) -> dict[str, list[str]]:
    """Return the result of an agent that runs this script. Its exit code is ignored."""
    result: dict[str, list[str]]
    (result,) = await lead.results(*await lead.spawn(f"{script}\ntrue"))
    return result


def make(repository: Path, name: str, text: str) -> str:
    """Return a commit on top of main that changes one file and is on no branch."""
    commit(repository, {name: text})
    made = git(repository, "rev-parse", "HEAD")
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    return made


# -- branches that an agent leaves checked out


@pytest.mark.parametrize("loose", ["", "echo new > loose; "], ids=["clean", "loose"])
async def test_a_branch_that_an_agent_switched_to_is_released_at_its_end(
    near_lead: Lead, repository: Path, loose: str
) -> None:
    git(repository, "branch", "feature")
    result = await run(near_lead, f"git switch -q feature; echo x > f; git add f; git commit -qm f; {loose}")
    git(repository, "switch", "-q", "feature")
    assert git(repository, "ls-files") == "README.md\nf\nshared.txt"
    ours = ["100644 README.md", "100644 f", *(["100644 loose"] if loose else []), "100644 shared.txt"]
    assert files_of(repository, "forkjoin/a1-git-switch-q-feature-echo-x-f") == ours
    if not loose:  # otherwise the autocommit has already released the branch
        assert warnings_of(result, "feature checked out")
    git(repository, "switch", "-q", "main")
    answer = await near_lead.call("merge_worktree", ids=["a1"], into="feature")
    assert [agent["id"] for agent in (answer["merged"] or answer["skipped"])] == ["a1"], answer


async def test_a_branch_without_a_commit_is_released_at_the_agents_end(near_lead: Lead, repository: Path) -> None:
    await run(near_lead, "git checkout -q --orphan empty")
    git(repository, "switch", "-q", "-c", "empty")


async def test_an_agents_own_branch_stays_checked_out(near_lead: Lead, repository: Path) -> None:
    result = await run(near_lead, "echo > new")
    (worktree,) = (repository.parent / "forkjoin" / "worktrees").glob("*/a1-*")
    assert git(worktree, "symbolic-ref", "--short", "HEAD").startswith("forkjoin/a1-")
    assert not warnings_of(result, "checked out")
    assert not warnings_of(result, CHANGED)


async def test_a_rebase_that_holds_a_branch_is_aborted_and_its_autostash_is_kept(
    near_lead: Lead, repository: Path
) -> None:
    git(repository, "switch", "-q", "-c", "feature")
    commit(repository, {"shared.txt": "theirs\n"})
    git(repository, "switch", "-q", "main")
    commit(repository, {"shared.txt": "ours\n"})
    tip = git(repository, "rev-parse", "feature")
    result = await run(near_lead, "git switch -q feature; echo x > README.md; git rebase -q --autostash main")
    git(repository, "switch", "-q", "feature")
    assert git(repository, "rev-parse", "HEAD") == tip
    assert warnings_of(result, "had a rebase of another branch in progress")
    (kept,) = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/stash-*").splitlines()
    assert git(repository, "show", f"{kept}:README.md") == "x"


async def test_the_autostash_of_an_unfinished_merge_is_kept(near_lead: Lead, repository: Path) -> None:
    git(repository, "branch", "feature")
    git(repository, "update-ref", "refs/heads/feature", make(repository, "shared.txt", "theirs\n"))
    script = "echo ours > shared.txt; git commit -qam ours; echo x > README.md; git merge -q --autostash feature"
    result = await run(near_lead, script)
    await near_lead.call("remove_worktrees", ids=["a1"], discard_unmerged=True)
    (kept,) = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/stash-*").splitlines()
    assert warnings_of(result, kept)
    assert git(repository, "show", f"{kept}:README.md") == "x"


@pytest.mark.parametrize("then", ["true", "rm -rf inner", "git -C inner switch -q --orphan empty"])
async def test_a_branch_in_a_worktree_inside_the_agents_worktree_is_released_at_the_agents_end(
    near_lead: Lead, repository: Path, then: str
) -> None:
    git(repository, "branch", "feature")
    result = await run(near_lead, f"git worktree add -q inner feature; echo x > inner/new; {then}")
    git(repository, "switch", "-q", "feature")
    assert warnings_of(result, "empty checked out" if "empty" in then else "feature checked out")


async def test_a_bisection_that_holds_a_branch_is_ended(near_lead: Lead, repository: Path) -> None:
    git(repository, "branch", "feature")
    result = await run(near_lead, "git switch -q feature; git bisect start; git checkout -q --detach")
    git(repository, "switch", "-q", "feature")
    assert warnings_of(result, "had a bisection of another branch in progress")


async def test_a_bisection_of_the_agents_own_branch_stays(near_lead: Lead, repository: Path) -> None:
    result = await run(near_lead, "git bisect start; git checkout -q --detach")
    (worktree,) = (repository.parent / "forkjoin" / "worktrees").glob("*/a1-*")
    assert git(worktree, "bisect", "log")
    assert not warnings_of(result, "bisection")


async def test_a_branch_that_verify_switched_to_is_released_at_the_agents_end(
    near_lead: Lead, repository: Path
) -> None:
    git(repository, "branch", "feature")
    await near_lead.run("echo > new", verify="git switch -q feature")
    git(repository, "switch", "-q", "feature")


# -- refs that changed meanwhile


async def test_refs_that_an_agent_changed_are_reported(near_lead: Lead, repository: Path) -> None:
    for name in ("moved", "gone", "stands"):
        git(repository, "branch", name)
    git(repository, "tag", "v1")
    script = """
git commit -q --allow-empty -m own
git branch -f moved HEAD; git branch -D gone; git branch new HEAD; git tag -f v1 HEAD; git tag v2 HEAD
git symbolic-ref refs/heads/stands refs/heads/main
echo x > README.md; git stash -q
"""
    (warning,) = warnings_of(await run(near_lead, script), CHANGED)
    base, own = git(repository, "rev-parse", "main", "moved").split()
    for named in (
        "gone (deleted)",
        f"moved ({base[:10]} → {own[:10]})",
        "new (new)",
        f"stands ({base[:10]} → main)",
        "the stash (new)",
        f"tag v1 ({base[:10]} → {own[:10]})",
        "tag v2 (new)",
    ):
        assert named in warning
    assert "forkjoin/" not in warning


async def test_a_change_of_an_ended_agents_branch_is_reported(near_lead: Lead, repository: Path) -> None:
    await near_lead.run("echo > one")
    (branch,) = git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/forkjoin").splitlines()
    (warning,) = warnings_of(await run(near_lead, f"git update-ref refs/heads/{branch} main"), CHANGED)
    assert f"{branch} (" in warning


@pytest.mark.parametrize("move", ["-d $ref", "$ref main"])
async def test_a_change_of_the_branch_of_an_agent_that_ended_meanwhile_is_reported(
    near_lead: Lead, repository: Path, tmp_path: Path, move: str
) -> None:
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    refs = "$(git for-each-ref --format='%(refname)' 'refs/heads/forkjoin/a1-*')"
    moves = f"for ref in {refs}; do git update-ref {move}; done"
    first, other, idle = await near_lead.spawn("echo > one", f"{wait}; {moves}", wait)
    await near_lead.results(first)
    (tmp_path / "go").touch()
    result, quiet = await near_lead.results(other, idle)
    (warning,) = warnings_of(result, CHANGED)
    assert "forkjoin/a1-" in warning
    assert "forkjoin/a2-" not in "".join(warnings_of(quiet, CHANGED))


async def test_agents_that_end_or_are_removed_meanwhile_cause_no_ref_change_warning(
    near_lead: Lead, repository: Path, tmp_path: Path
) -> None:
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    first, gone, last = await near_lead.spawn("echo > one", "true", wait)
    await near_lead.results(first, gone)
    await near_lead.call("remove_worktrees", ids=[gone])
    (tmp_path / "go").touch()
    (result,) = await near_lead.results(last)
    assert not warnings_of(result, CHANGED)


async def test_an_agents_result_says_that_another_agent_moved_its_branch(near_lead: Lead, repository: Path) -> None:
    moved = (
        'git commit -q --allow-empty -m other; git update-ref "refs/heads/$(cat "$O/branch")" HEAD; touch "$O/moved"'
    )
    report_branch = 'git symbolic-ref --short HEAD > "$O/b"; mv "$O/b" "$O/branch"'
    wait = 'until [ -e "$O/{}" ]; do sleep 0.05; done'
    scripts = (f"{report_branch}\n{wait.format('moved')}", f"{wait.format('branch')}\n{moved}")
    ids = await near_lead.spawn(*(f"O={repository}/.git\n{script}" for script in scripts))
    first, other = await near_lead.results(*ids)
    assert warnings_of(first, "was moved from outside")
    assert not warnings_of(other, "was moved from outside")


@pytest.mark.parametrize("then", ["git commit -q --allow-empty -m on", "git switch -q --detach", "true"])
async def test_a_merge_into_a_running_agents_branch_is_not_reported_as_a_move_from_outside(
    near_lead: Lead, repository: Path, tmp_path: Path, then: str
) -> None:
    script = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; {then}"
    first, other = await near_lead.spawn(script, "echo > x")
    await near_lead.until(first, state="running")
    await near_lead.results(other)
    into = git(repository, "branch", "--format=%(refname:short)", "--list", "forkjoin/a1-*")
    answer = await near_lead.call("merge_worktree", ids=[other], into=into)
    assert answer["merged"], answer
    (tmp_path / "go").touch()
    (result,) = await near_lead.results(first)
    assert not warnings_of(result, "was moved from outside")


async def test_an_autocommit_is_not_reported_as_a_move_from_outside(near_lead: Lead) -> None:
    result = await run(near_lead, "echo > one; git add one; git commit -qm one; echo > two")
    assert warnings_of(result, "1 uncommitted path")
    assert not warnings_of(result, "was moved from outside")


async def test_ref_changes_by_other_agents_and_merges_are_not_reported(
    near_lead: Lead, repository: Path, tmp_path: Path
) -> None:
    git(repository, "branch", "gone")
    await near_lead.run("echo > one")
    (waiting,) = await near_lead.spawn(f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; git branch -D gone")
    await near_lead.until(waiting, state="running")
    await near_lead.run("echo > two", "echo > three; git switch -q --detach; git branch -D $FORKJOIN_BRANCH")
    await near_lead.call("merge_worktree", ids=["a1", "a3"])
    await near_lead.call("undo_merge")
    await near_lead.call("remove_worktrees", ids=["a1"], discard_unmerged=True)
    git(repository, "update-ref", "refs/remotes/origin/main", "main")
    (tmp_path / "go").touch()
    (result,) = await near_lead.results(waiting)
    (warning,) = warnings_of(result, CHANGED)
    assert warning.startswith("While it ran, refs other than its own changed, and not by a merge: gone (deleted).")


async def test_ref_changes_of_an_earlier_attempt_are_reported(near_lead: Lead, repository: Path) -> None:
    git(repository, "branch", "early")
    script = "[ -e again ] && exit; touch again; git branch -D early; exit 75"
    (agent,) = await near_lead.spawn(script, retries=1)
    (result,) = await near_lead.results(agent)
    assert "early (deleted)" in str(warnings_of(result, CHANGED))
