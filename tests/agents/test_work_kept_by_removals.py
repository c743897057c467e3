"""Uncommitted, hidden and left-behind work that a removal keeps or refuses to take."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import blob
from support.harness import Lead, forkjoin, git, open_lead_in_memory
from support.removals import refused, worktree_path_of


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


async def test_a_removal_keeps_uncommitted_files_and_deletes_ignored_files(
    near: Lead, repository: Path, home: Home
) -> None:
    (first,) = await near.run("echo '*.log' > .gitignore; echo x > x.txt")
    await near.call("merge_worktree", ids=[first])
    (worktree_path_of(home, first) / "later.txt").write_text("later\n")
    (worktree_path_of(home, first) / "later.log").write_text("ignored\n")
    kept = (await near.call("remove_worktrees", ids=[first]))["removed"][0]["kept_as"]
    assert git(repository, "ls-tree", "--name-only", kept).split() == [
        *(".gitignore", "README.md", "later.txt", "shared.txt", "x.txt")
    ]


async def test_a_branch_that_became_a_symbolic_ref_is_not_merged_and_is_removed_without_its_target(
    near: Lead, repository: Path
) -> None:
    (first,) = await near.run("echo x > x.txt")
    result = await near.call("get_result", id=first)
    main = git(repository, "rev-parse", "main")
    git(repository, "symbolic-ref", f"refs/heads/{result['branch']}", "refs/heads/main")
    (skipped,) = (await near.call("merge_worktree", ids=[first]))["skipped"]
    assert "its branch is a symbolic ref to refs/heads/main" in skipped["why"]
    answer = await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    assert "its branch was a symbolic ref to refs/heads/main" in " ".join(answer["warnings"])
    assert git(repository, "show", f"{answer['removed'][0]['kept_as']}:x.txt") == "x"
    assert (
        git(repository, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads") == f"refs/heads/main {main}"
    )


async def test_a_file_that_git_cant_commit_prevents_a_removal_or_is_archived(near: Lead, repository: Path) -> None:
    await near.run("echo done > done; mkdir 'GIT~1'; echo precious > 'GIT~1/x'")
    await near.call("merge_worktree", ids=["a1"])
    await refused(near, repository, "GIT~1/x (git can't take it)", "a1", discard=False)
    answer = await near.call("remove_worktrees", ids=["a1"], discard_unmerged=True)
    assert "refs/forkjoin/kept/nested/a1-" in str(answer)
    (ref,) = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested").splitlines()
    assert "precious" in git(repository, "show", f"{ref}:files.tar")


async def test_a_submodule_at_another_commit_is_not_unsaved_work(near: Lead, repository: Path, tmp_path: Path) -> None:
    library, allow = tmp_path / "library", ("-c", "protocol.file.allow=always")
    git(tmp_path, "init", "-q", str(library))
    git(library, "commit", "-q", "--allow-empty", "-m", "one")
    git(repository, *allow, "submodule", "add", "-q", str(library), "lib")
    git(repository, "commit", "-q", "-m", "with a submodule")
    git(repository, "switch", "-q", "-c", "next")
    git(library, "commit", "-q", "--allow-empty", "-m", "two")
    git(repository, *allow, "submodule", "update", "-q", "--remote")
    git(repository, "commit", "-q", "-a", "-m", "the next library")
    git(repository, "switch", "-q", "main")
    (first,) = await near.run(f"git {' '.join(allow)} submodule update -q --init; git merge -q next")
    await near.call("merge_worktree", ids=[first])
    assert "warnings" not in await near.call("remove_worktrees", ids=[first])


@pytest.mark.parametrize("leads_to", ["$R", "$R/.wt", ".."])
async def test_a_symlink_in_place_of_a_worktree_changes_no_other_worktree(
    near: Lead, repository: Path, home: Home, leads_to: str
) -> None:
    (repository / ".git/info/exclude").write_text(".wt/\n")
    git(repository, "worktree", "add", "-q", "-b", "feature", ".wt/feature")
    (repository / ".wt/feature/staged.txt").write_text("staged\n")
    git(repository / ".wt/feature", "add", "staged.txt")
    (other,) = await near.run("echo x > other.txt")
    both = repository / ".wt/feature", worktree_path_of(home, other)
    before = [git(folder, "status", "--porcelain=v2", "--branch") for folder in both]
    link = f'R={repository}; W=$PWD; cd /; rm -rf "$W"; ln -s {leads_to} "$W"'
    (first,) = await near.run(link)
    answer = await near.call("remove_worktrees", ids=[first])
    assert [agent["id"] for agent in answer["removed"]] == [first]
    assert [git(folder, "status", "--porcelain=v2", "--branch") for folder in both] == before
    assert "feature" not in str(await near.call("get_result", id=first))


async def test_a_commit_that_an_agent_reset_is_kept_without_a_warning_when_it_is_removed(
    near: Lead, repository: Path
) -> None:
    reset = "echo {0} > x; git add x; git commit -qm x; git reset -q --hard HEAD~1"
    first, other = reset.format("one"), f"git switch -q --detach; {reset.format('two')}; git switch -q -"
    ids = await near.run(first, other, "echo x > x; git add x; git commit -qm x")
    answer = await near.call("remove_worktrees", ids=ids[:2])
    assert [agent["id"] for agent in answer["removed"]] == ids[:2]
    assert not answer.get("warnings")
    await near.call("remove_worktrees", ids=ids[2:], discard_unmerged=True)
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/left/").split()
    assert [git(repository, "show", f"{ref}:x") for ref in kept] == ["one", "two"]


async def test_unreadable_abandoned_commits_prevent_a_removal_unless_discarded(near: Lead, repository: Path) -> None:
    twice = "for n in 1 2; do git commit -q --allow-empty -m $n; done"
    object_ = "git rev-parse HEAD~1 | sed 's,..,&/,'"
    gone = f'rm -f "$(git rev-parse --git-common-dir)/objects/$({object_})"'
    (agent,) = await near.run(f"{twice}; {gone}; git reset -q --soft $FORKJOIN_BASE; git update-ref HEAD main")
    await refused(near, repository, "commits that it left behind can't be read", agent, discard=False)
    await near.call("remove_worktrees", ids=[agent], discard_unmerged=True)


#: How an agent can make git ignore all files from now on.
_HIDE = {
    "info/exclude": 'echo "*" >> "$(git rev-parse --git-common-dir)/info/exclude"',
    "the user's own rules": 'mkdir -p ~/.config/git; echo "*" >> ~/.config/git/ignore',
    "another file of the user's own": 'echo "*" > ~/all; git config --global core.excludesFile ~/all',
    "an included file": 'echo "*" > ~/all; git config -f ~/more core.excludesFile ~/all; '
    "git config --global include.path ~/more",
    "the list of shared files": 'echo "*" > "$(git rev-parse --git-dir)/forkjoin-ignore"',
}


@pytest.mark.parametrize("how", _HIDE)
async def test_files_ignored_by_rules_that_an_agent_added_prevent_a_removal(
    near: Lead, repository: Path, how: str
) -> None:
    await near.run(f"{_HIDE[how]}; mkdir deep; echo precious > deep/precious")
    await refused(near, repository, "deep/precious (ignored by rules that nobody accepted", "a1", discard=False)
    await near.call("remove_worktrees", ids=["a1"], discard_unmerged=True)
    kept = git(repository, "for-each-ref", "--format=%(refname)", "refs/forkjoin/kept/nested")
    assert b"precious" in blob(repository, kept, "files.tar")


async def test_files_ignored_by_a_file_of_the_worktree_are_not_unsaved_work(near: Lead, repository: Path) -> None:
    (repository / ".rules").write_text("*.tmp\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "rules")
    git(repository, "config", "--global", "core.excludesFile", ".rules")
    (first,) = await near.run("touch x.tmp")
    assert "warnings" not in await near.call("remove_worktrees", ids=[first])


async def test_files_ignored_by_a_persons_rules_are_not_unsaved_work(
    near: Lead, repository: Path, user: Path, home: Home
) -> None:
    (user / ".config" / "git").mkdir(parents=True)
    (user / ".config" / "git" / "ignore").write_text(".DS_Store\n")
    (first, second) = [(await near.run("touch .DS_Store; mkdir cache; echo '*' > cache/.gitignore"))[0] for _ in "12"]
    await near.call("remove_worktrees", ids=[first])
    (worktree_path_of(home, second) / "notes").touch()
    (repository / ".git" / "info" / "exclude").write_text("notes\n")
    await refused(near, repository, "notes (ignored by rules that nobody accepted", second, discard=False)
    forkjoin(repository, "trust", "--yes")
    assert "warnings" not in await near.call("remove_worktrees", ids=[second])
    assert not list(home.shared_config.glob("*/*.ignore"))
