"""Branches with malformed objects: they are rejected, and other branches are merged."""

from pathlib import Path

from support.harness import Lead, git
from support.merges import ids_of

#: Commits a tree with a folder `.git` in it, by git's plumbing.
PLANT = """
t=$(printf '100755 blob %s\\tpre-commit\\n' $(git hash-object -w README.md) | git mktree)
t=$( (git ls-tree HEAD; printf '040000 tree %s\\t.git\\n' $t) | git mktree)
git checkout -q --detach
git update-ref refs/heads/$FORKJOIN_BRANCH $(git commit-tree -p HEAD -m planted $t)
"""

#: Commits a valid tree on top of the planted commit.
MEND = """
echo > two
git add two
git update-ref refs/heads/$FORKJOIN_BRANCH $(git commit-tree -p $FORKJOIN_BRANCH -m mended $(git write-tree))
git reset -q --hard
"""


async def test_a_branch_with_a_folder_named_dot_git_is_rejected_and_the_others_are_merged(
    quick_lead: Lead, repository: Path, tmp_path: Path
) -> None:
    git(repository, "branch", "release")
    await quick_lead.run("echo > one", PLANT, "echo > three")
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2", "a3"], into="release", confirm=True)
    assert ids_of(answer, "merged") == ["a1", "a3"], answer
    (rejected,) = answer["rejected"]
    assert rejected["id"] == "a2"
    assert "hasDotgit: contains '.git'" in rejected["why"]
    git(tmp_path, "clone", "-q", "-b", "release", str(repository), str(tmp_path / "clone"))


async def test_a_dry_run_reports_a_branch_with_malformed_objects(quick_lead: Lead) -> None:
    await quick_lead.run("echo > one", PLANT)
    answer = await quick_lead.call("merge_worktree", ids=["a1", "a2"], dry_run=True)
    assert (ids_of(answer, "merged"), ids_of(answer, "rejected")) == (["a1"], ["a2"]), answer


async def test_a_branch_can_be_squashed_if_only_its_earlier_commits_are_malformed(
    quick_lead: Lead, repository: Path
) -> None:
    await quick_lead.run(f"{PLANT}{MEND}")
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a1"]), "rejected") == ["a1"]
    answer = await quick_lead.call("merge_worktree", ids=["a1"], strategy="squash")
    assert ids_of(answer, "merged") == ["a1"]
    assert git(repository, "ls-tree", "--name-only", "main") == "README.md\nshared.txt\ntwo"
