"""Commits made with git-fast-import(1)."""

from pathlib import Path

from forkjoin.git.changed_paths import changes_between
from forkjoin.git.fast_import import NewCommit, make_commit, make_commits
from support.branches import commit
from support.harness import git


async def test_a_merge_commit_has_the_given_parents_tree_and_message(repository: Path) -> None:
    git(repository, "switch", "-q", "-c", "one")
    commit(repository, {"one": "1\n", "README.md": None})
    main, one = git(repository, "rev-parse", "main", "one").split()
    message = "Merge a1 (x)\n\n# no comment\n\nForkjoin-Agent: a1\n"
    made = await make_commit(
        str(repository / ".git"), main, git(repository, "rev-parse", "one^{tree}"), one, message, 9.0
    )
    assert git(repository, "rev-parse", f"{made}^@").split() == [main, one]
    assert git(repository, "rev-parse", f"{made}^{{tree}}") == git(repository, "rev-parse", "one^{tree}")
    assert git(repository, "log", "-1", "--format=%B%at", made) == f"{message}9"


async def test_a_folder_replaces_a_file_in_whatever_order_the_changes_are(repository: Path) -> None:
    git(repository, "switch", "-q", "-c", "one")
    commit(repository, {"shared.txt": None, "shared.txt/deep": "x\n"})
    changes = await changes_between(str(repository / ".git"), "main", "one")
    for order in (changes, changes[::-1]):
        new = NewCommit(order, None, "message", "a <b> 0 +0000", "a <b> 0 +0000")
        (made,) = await make_commits(str(repository / ".git"), git(repository, "rev-parse", "main"), [new])
        assert made.tree == git(repository, "rev-parse", "one^{tree}")
