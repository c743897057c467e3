"""Many branches are merged in few git calls, with the same trees as `git merge` one by one."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from forkjoin.git.commit_identity import make_signature
from forkjoin.git.merging.merge_branches_in_order import (
    AlreadyContained,
    Branch,
    BranchConflict,
    MergeCommit,
    MergeOutcome,
    MissingDependency,
    RefusedByGit,
    merge_branches_in_order,
)
from forkjoin.git.refs import find_tips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import random_histories
from support.branches import blob, commit, everything, put_counting_git
from support.harness import git


async def join(repository: Path, target: str, branches: list[str], *, squash: bool = False) -> list[MergeOutcome]:
    """Merge branches onto a target. The target's ref does not move."""
    found = await find_tips(repository, [f"refs/heads/{name}" for name in (target, *branches)])
    tips = {name: found[f"refs/heads/{name}"] for name in (target, *branches)}
    asked = [Branch(number, tips[name], f"Merge {name}\n") for number, name in enumerate(branches)]
    return await merge_branches_in_order(
        str(repository / ".git"), tips[target], asked, await make_signature(repository, 1000.0), squash=squash
    )


def one_by_one(repository: Path, target: str, branches: list[str]) -> list[str]:
    """Run `git merge` for each branch. Return each resulting tree, or `conflict`."""
    git(repository, "checkout", "-q", "-f", "--detach", target)
    found: list[str] = []
    for name in branches:
        argv = ["git", "-C", str(repository), "merge", "-q", "--no-ff", "--no-edit", "-m", name, name]
        if subprocess.run(argv, capture_output=True, check=False).returncode:
            git(repository, "reset", "-q", "--hard")
            git(repository, "clean", "-ffdxq")
            found.append("conflict")
        else:
            found.append(git(repository, "rev-parse", "HEAD^{tree}"))
    return found


def trees_after(fates: list[MergeOutcome], head: str) -> list[str]:
    """Return the tree after each outcome, or `conflict`."""
    trees: list[str] = []
    for fate in fates:
        if isinstance(fate, MergeCommit):
            head = fate.head.tree
        trees.append("conflict" if isinstance(fate, BranchConflict | RefusedByGit) else head)
    return trees


_HISTORIES = st.one_of(random_histories.histories(), random_histories.histories(criss_cross=True))
_SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


async def _check_history(folder: Path, commits: list[random_histories.Commit]) -> None:
    """Check that merging each branch of a history makes the same tree as `git merge`."""
    git(folder, "init", "-q")
    random_histories.write(folder, commits)
    branches = [f"b{place}" for place in range(1, len(commits) - 1)]
    target = f"b{len(commits) - 1}"
    outcomes = await join(folder, target, branches)
    trees = trees_after(outcomes, git(folder, "rev-parse", f"{target}^{{tree}}"))
    assert trees == one_by_one(folder, target, branches)


@settings(max_examples=20, suppress_health_check=_SUPPRESSED)
@given(commits=_HISTORIES)
async def test_the_trees_equal_those_of_git_merge_for_any_history(
    tmp_path_factory: pytest.TempPathFactory, commits: list[random_histories.Commit]
) -> None:
    await _check_history(tmp_path_factory.mktemp("history"), commits)


@pytest.mark.soak
@settings(max_examples=300, suppress_health_check=_SUPPRESSED)
@given(commits=_HISTORIES)
async def test_the_trees_equal_those_of_git_merge_for_many_histories(
    tmp_path_factory: pytest.TempPathFactory, commits: list[random_histories.Commit]
) -> None:
    await _check_history(tmp_path_factory.mktemp("history"), commits)


# -- few git calls


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_counting_git(tmp_path / "bin", monkeypatch)


def fork(repository: Path, name: str, files: Mapping[str, str | None], base: str = "main") -> None:
    """Create a branch with these changes."""
    git(repository, "switch", "-q", "-c", name, base)
    commit(repository, files)
    git(repository, "switch", "-q", "main")


def merges_in(calls: Path) -> int:
    return calls.read_text().count(" merge-tree ")


async def test_branches_without_common_files_are_combined_without_git_merge_tree(repository: Path, calls: Path) -> None:
    commit(repository, {"folder/a": "a\n", "folder/b": "b\n"})
    fork(repository, "one", {"folder/a": "1\n", "new/one": "1\n"})
    fork(repository, "two", {"folder/b": "2\n", "new/two": "2\n"})
    commit(repository, {"person": "x\n"})
    before = everything(repository)
    one, two = await join(repository, "main", ["one", "two"])
    assert isinstance(one, MergeCommit)
    assert isinstance(two, MergeCommit)
    assert everything(repository) == before
    assert merges_in(calls) == 0
    assert git(repository, "rev-parse", f"{two.head.commit}^1", f"{two.head.commit}^2").split() == [
        one.head.commit,
        git(repository, "rev-parse", "two"),
    ]
    assert git(repository, "rev-parse", f"{two.head.commit}^{{tree}}") == two.head.tree
    changed = git(repository, "diff", "--name-only", "main", two.head.commit).split()
    assert changed == ["folder/a", "folder/b", "new/one", "new/two"]
    assert git(repository, "log", "-1", "--format=%B%an %at %ct", two.head.commit) == "Merge two\nTest 1000 1000"


@pytest.mark.parametrize(
    ("one", "two", "main"),
    [
        ({"a": "1\n"}, {"b": "2\n"}, {"a": "0\n"}),  # the target has changed the file too
        ({"a": "1\n"}, {"a": "2\n"}, {}),
        ({"a": "1\n"}, {"a": None, "a/b": "2\n"}, {}),  # a folder in its place
        ({"a": "1\n"}, {"new": "2\n", "b": None}, {}),  # the file may have been renamed
        ({"a": "1\n"}, {".gitattributes": "b merge=union\n"}, {}),
    ],
)
async def test_branches_that_may_overlap_are_merged_by_git(
    repository: Path,
    calls: Path,
    one: dict[str, str | None],
    two: dict[str, str | None],
    main: dict[str, str | None],
) -> None:
    commit(repository, {"a": "a\n", "b": "b\n"})
    fork(repository, "one", one)
    fork(repository, "two", two)
    if main:
        commit(repository, main)
    before = merges_in(calls)
    await join(repository, "main", ["one", "two"])
    assert merges_in(calls) > before


async def test_groups_that_overlap_in_different_files_share_git_calls(repository: Path, calls: Path) -> None:
    lines = "".join(f"{n}\n" for n in range(30))
    commit(repository, {"a": lines, "b": lines})
    for n, file in enumerate("aaabbb"):
        fork(repository, f"b{n}", {file: lines.replace(f"{n * 5}\n", "changed\n")})
    fork(repository, "bad", {"a": lines.replace("0\n", "else\n")})
    branches = [*(f"b{n}" for n in range(6)), "bad"]
    expected = one_by_one(repository, "main", branches)
    git(repository, "switch", "-q", "main")
    before = merges_in(calls)
    fates = await join(repository, "main", branches)
    assert merges_in(calls) - before == 4  # three rounds of two, and one for `bad`
    assert trees_after(fates, git(repository, "rev-parse", "main^{tree}")) == expected
    assert isinstance(fates[6], BranchConflict)


async def test_a_conflicting_branch_is_skipped_and_its_files_are_named(repository: Path) -> None:
    fork(repository, "one", {"shared.txt": "1\n"})
    fork(repository, "two", {"shared.txt": "2\n", "also": "2\n"})
    fork(repository, "three", {"three": "3\n"})
    _, two, three = await join(repository, "main", ["one", "two", "three"])
    assert isinstance(two, BranchConflict)
    assert two.files == ("shared.txt",)
    assert isinstance(three, MergeCommit)
    assert sorted(tree_of(repository, three.head.commit)) == ["README.md", "shared.txt", "three"]


async def test_a_branch_is_not_merged_without_the_branch_it_needs(repository: Path) -> None:
    fork(repository, "first", {"shared.txt": "0\n"})
    fork(repository, "one", {"shared.txt": "1\n"})
    fork(repository, "two", {"two": "2\n"}, base="one")
    found = await find_tips(repository, [f"refs/heads/{name}" for name in ("main", "first", "one", "two")])
    main, first, one, two = (found[f"refs/heads/{name}"] for name in ("main", "first", "one", "two"))
    signed = await make_signature(repository, 1000.0)
    asked = [Branch(0, first, "x"), Branch(1, one, "x"), Branch(2, two, "x", frozenset({1}))]
    fates = await merge_branches_in_order(str(repository / ".git"), main, asked, signed)
    assert [type(fate) for fate in fates] == [MergeCommit, BranchConflict, MissingDependency]
    fates = await merge_branches_in_order(str(repository / ".git"), main, asked[1:], signed)
    assert [type(fate) for fate in fates] == [MergeCommit, MergeCommit]


async def test_contained_and_unrelated_branches_are_not_merged(repository: Path) -> None:
    git(repository, "branch", "old")
    commit(repository, {"new": "x\n"})
    git(repository, "switch", "-q", "--orphan", "alone")
    commit(repository, {"alone": "x\n"})
    git(repository, "switch", "-q", "main")
    old, alone = await join(repository, "main", ["old", "alone"])
    assert isinstance(old, AlreadyContained)
    assert isinstance(alone, RefusedByGit)
    assert "unrelated histories" in alone.why


# -- squashing


async def test_a_squashed_branch_is_one_commit_that_names_all_authors(repository: Path) -> None:
    fork(repository, "one", {"one": "1\n"})
    git(repository, "switch", "-q", "one")
    by = ("-c", "user.name=Ann Other", "-c", "user.email=ann@example.org")
    git(repository, *by, "commit", "-q", "--allow-empty", "-m", "more")
    git(repository, "switch", "-q", "main")
    (fate,) = await join(repository, "main", ["one"], squash=True)
    assert isinstance(fate, MergeCommit)
    told = git(repository, "log", "-1", "--format=%P%n%an%n%cn%n%B", fate.head.commit).splitlines()
    assert told[:3] == [git(repository, "rev-parse", "main"), "Ann Other", "Test"]
    assert told[3:] == ["Merge one", f"Co-authored-by: Test <{git(repository, 'config', 'user.email')}>"]
    assert blob(repository, fate.head.commit, "one") == b"1\n"


async def test_a_malformed_author_and_a_missing_time_are_accepted(repository: Path) -> None:
    tree = git(repository, "rev-parse", "main^{tree}")
    lines = (
        f"tree {tree}\nparent {git(repository, 'rev-parse', 'main')}\nauthor A <b <c@d> \ncommitter A <c@d> 1 +0000\n"
    )
    (repository.parent / "commit").write_text(f"{lines}\nold\n")
    odd = git(repository, "hash-object", "-t", "commit", "-w", "--literally", str(repository.parent / "commit"))
    git(repository, "branch", "odd", odd)
    fork(repository, "on-it", {"one": "1\n"}, base="odd")
    for squash in (False, True):
        (fate,) = await join(repository, "main", ["on-it"], squash=squash)
        assert isinstance(fate, MergeCommit)
    (fate,) = await join(repository, "main", ["odd"], squash=False)
    assert isinstance(fate, MergeCommit)


# -- names, modes and kinds of files


async def test_all_kinds_of_names_and_files_are_merged_unchanged(repository: Path) -> None:
    names = ['with "quotes"', "with\nnewline", "back\\slash", "tab\t", "-x", "ünï", "./:(top)x"]
    fork(repository, "one", dict.fromkeys(names, "x\n"))
    git(repository, "switch", "-q", "-c", "two", "main")
    (repository / "link").symlink_to("shared.txt")
    (repository / "run").write_text("x\n")
    (repository / "run").chmod(0o755)
    (repository / "bytes").write_bytes(bytes(range(256)))
    git(repository, "add", "--all")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    git(repository, "commit", "-qm", "kinds")
    git(repository, "switch", "-q", "-f", "main")
    fates = await join(repository, "main", ["one", "two"])
    last = fates[-1]
    assert isinstance(last, MergeCommit)
    expected = {**tree_of(repository, "main"), **tree_of(repository, "one"), **tree_of(repository, "two")}
    assert tree_of(repository, last.head.commit) == expected


def tree_of(repository: Path, revision: str) -> dict[str, str]:
    rows = (row.partition("\t") for row in git(repository, "ls-tree", "-rz", revision).split("\0") if row)
    return {path: how for how, _, path in rows}
