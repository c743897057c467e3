"""A merge is put in place in a worktree; one that is under way there is not lost in what is committed for its agent."""

import os
from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git.file_names import printable
from forkjoin.git.worktrees import merge_in_worktree
from support.autocommits import leave, leave_twice
from support.branches import REAL_GIT, Fork, blob, commit, make_fork, put_git, put_hooks, write
from support.harness import git


@pytest.fixture
def theirs(repository: Path) -> str:
    """A commit that conflicts with `main` in every way."""
    commit(repository, {"binary": "\0", "gone": "1\n", "edited": "1\n"})
    git(repository, "switch", "-qc", "side")
    made = commit(
        repository, {"shared.txt": "theirs\n", "binary": "\0theirs", "gone": None, "edited": "2\n", "new": "x"}
    )
    git(repository, "switch", "-q", "main")
    commit(repository, {"shared.txt": "ours\n", "binary": "\0ours", "gone": "2\n", "edited": None})
    return made


@pytest.fixture
async def merging_fork(repository: Path, theirs: str) -> Fork:
    """A worktree with the merge of that in place."""
    fork = await make_fork(repository)
    await merge_in_worktree.begin(fork.common_dir, fork.path, theirs, "Merge\n")
    return fork


# -- put in place


def _stands(fork: Fork) -> tuple[str, str, dict[str, bytes]]:
    files = {path.name: path.read_bytes() for path in fork.path.iterdir() if path.name != ".git"}
    return git(fork.path, "ls-files", "--stage"), git(fork.path, "rev-parse", "MERGE_HEAD"), files


async def test_it_stands_as_git_leaves_it_with_what_both_had_in_common(merging_fork: Fork, theirs: str) -> None:
    _, merged, files = _stands(merging_fork)
    assert (merged, git(merging_fork.path, "rev-parse", "HEAD")) == (theirs, merging_fork.base)
    assert git(merging_fork.path, "status", "--short").splitlines() == [
        *("UU binary", "DU edited", "UD gone", "A  new", "UU shared.txt")
    ]
    marked = files["shared.txt"].decode().splitlines()
    assert [line.split(" ")[0] for line in marked] == [
        *("<<<<<<<", "ours", "|||||||", "one", "two", "three", "=======", "theirs", ">>>>>>>")
    ]
    git(merging_fork.path, "add", "--all")
    git(merging_fork.path, "commit", "-q", "--no-edit")
    assert git(merging_fork.path, "log", "-1", "--format=%B").strip() == "Merge"


async def test_one_that_was_cut_off_is_made_anew(merging_fork: Fork, theirs: str) -> None:
    before = _stands(merging_fork)
    (merging_fork.folder / "MERGE_HEAD").unlink()
    git(merging_fork.path, "read-tree", "HEAD")
    for name in ("shared.txt", "new", "edited"):
        write(merging_fork.path, name, "half\n")
    (merging_fork.folder / "index.lock").touch()
    await merge_in_worktree.begin(merging_fork.common_dir, merging_fork.path, theirs, "Merge\n")
    assert _stands(merging_fork) == before


async def test_neither_hooks_nor_the_persons_own_ways_of_merging_are_heeded(
    repository: Path, theirs: str, tmp_path: Path
) -> None:
    put_hooks(repository / ".git" / "hooks", tmp_path / "told")
    said = {
        "merge.ff": "only",
        "merge.conflictStyle": "merge",
        "rerere.enabled": "true",
        "merge.verifySignatures": "true",
    }
    for name, value in (said | {"pull.twohead": "ours"}).items():
        git(repository, "config", name, value)
    fork = await make_fork(repository)
    await merge_in_worktree.begin(fork.common_dir, fork.path, theirs, "Merge\n")
    assert b"|||||||" in (fork.path / "shared.txt").read_bytes()
    assert not (repository / ".git" / "rr-cache").exists()
    assert not (tmp_path / "told").exists()


async def test_what_merges_cleanly_is_left_uncommitted_too(repository: Path) -> None:
    fork = await make_fork(repository)
    theirs = commit(repository, {"new": "x\n"})
    await merge_in_worktree.begin(fork.common_dir, fork.path, theirs, "Merge\n")
    assert (fork.tip(), git(fork.path, "rev-parse", "MERGE_HEAD")) == (fork.base, theirs)
    await leave_twice(fork)
    assert git(repository, "log", "-1", "--format=%P", fork.branch).split() == [fork.base, theirs]


# -- what is committed for its agent


def _resolve(fork: Fork) -> None:
    for name in ("shared.txt", "binary", "gone"):
        write(fork.path, name, "both\n")
    (fork.path / "edited").unlink()


@pytest.mark.parametrize("added", [True, False])
async def test_one_that_is_resolved_becomes_a_merge_commit(merging_fork: Fork, theirs: str, *, added: bool) -> None:
    _resolve(merging_fork)
    if added:
        git(merging_fork.path, "add", "--all")
    left = await leave_twice(merging_fork)
    assert git(merging_fork.repository, "log", "-1", "--format=%P", merging_fork.branch).split() == [
        merging_fork.base,
        theirs,
    ]
    assert left.warnings[0] == "The merge that was under way was committed for the agent."
    assert left.conflicts == []
    assert blob(merging_fork.repository, merging_fork.branch, "shared.txt") == b"both\n"
    assert [path.name for path in merging_fork.folder.glob("*MERGE*")] == []


async def test_one_that_is_resolved_as_it_was_before_becomes_a_merge_commit_too(
    merging_fork: Fork, theirs: str
) -> None:
    git(merging_fork.path, "read-tree", "-u", "--reset", "HEAD")
    left = await leave_twice(merging_fork)
    assert (left.uncommitted, left.warnings) == (0, ["The merge that was under way was committed for the agent."])
    assert git(merging_fork.repository, "log", "-1", "--format=%P", merging_fork.branch).split() == [
        merging_fork.base,
        theirs,
    ]


@pytest.mark.parametrize(
    ("resolved", "conflicts"),
    [
        (["shared.txt"], ["binary", "edited", "gone"]),
        (["binary", "gone", "edited"], ["shared.txt"]),
        ([], ["binary", "edited", "gone", "shared.txt"]),
    ],
)
async def test_conflicts_that_are_left_are_named_and_committed_without_the_merge(
    merging_fork: Fork, resolved: list[str], conflicts: list[str]
) -> None:
    for name in resolved:
        write(merging_fork.path, name, "both\n")
    with (merging_fork.path / "shared.txt").open("a") as file:
        file.write("more\n")
    left = await leave_twice(merging_fork)
    assert left.conflicts == conflicts
    assert left.warnings[-1] == f"They were in the middle of a merge, with conflicts in: {', '.join(conflicts)}."
    assert git(merging_fork.repository, "log", "-1", "--format=%P", merging_fork.branch) == merging_fork.base
    assert not (merging_fork.folder / "MERGE_HEAD").exists()


@pytest.mark.parametrize("touched", [True, False])
async def test_a_submodule_in_conflict_is_named_and_keeps_nothing_from_being_committed(
    repository: Path, *, touched: bool
) -> None:
    base, ours, theirs = (git(repository, "commit-tree", "-m", text, "HEAD^{tree}") for text in ("1", "2", "3"))

    def point(commit: str) -> str:
        git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},library")
        git(repository, "commit", "-qm", "a submodule")
        return git(repository, "rev-parse", "HEAD")

    point(base)
    git(repository, "switch", "-qc", "side")
    side = point(theirs)
    git(repository, "switch", "-q", "main")
    point(ours)
    fork = await make_fork(repository)
    await merge_in_worktree.begin(fork.common_dir, fork.path, side, "Merge\n")
    if touched:
        git(fork.path, "clone", "-q", str(repository), "library")
    write(fork.path, "mine", "work\n")
    left = await leave_twice(fork)
    assert left.conflicts == ["library"]
    assert f"160000 commit {ours}\tlibrary" in git(repository, "ls-tree", fork.branch)
    assert blob(repository, fork.branch, "mine") == b"work\n"


@pytest.mark.parametrize("resolved", ["both\n", None])
async def test_what_is_resolved_outside_a_sparse_checkout_is_committed_too(
    repository: Path, resolved: str | None
) -> None:
    commit(repository, {"in/a": "1\n", "out/a": "1\n", "out/b": "1\n"})
    git(repository, "switch", "-qc", "side")
    theirs = commit(repository, {"out/a": "2\n"})
    git(repository, "switch", "-q", "main")
    commit(repository, {"out/a": "3\n"})
    git(repository, "sparse-checkout", "set", "in")
    fork = await make_fork(repository)
    git(fork.path, "sparse-checkout", "set", "in")
    await merge_in_worktree.begin(fork.common_dir, fork.path, theirs, "Merge\n")
    write(fork.path, "out/a", resolved)
    left = await leave_twice(fork)
    assert left.conflicts == []
    assert git(repository, "log", "-1", "--format=%P", fork.branch).split() == [fork.base, theirs]
    names = git(repository, "ls-tree", "-r", "--name-only", fork.branch).split()
    assert names == ["README.md", "in/a", *(["out/a"] if resolved else []), "out/b", "shared.txt"]


@pytest.mark.parametrize("step", ["add", "write-tree", "update-ref"])
async def test_cut_off_at_any_step_no_conflict_is_taken_for_resolved(
    merging_fork: Fork, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        full = 'echo "fatal: No space left on device" >&2; exit 128'
        put_git(tmp_path / "bin", patch, f'case " $* " in *" {step} "*) {REAL_GIT} "$@"; {full};; esac')
        with pytest.raises(GitError):
            await leave(merging_fork)
    await leave_twice(merging_fork)
    assert git(merging_fork.repository, "log", "-1", "--format=%P", merging_fork.branch) == merging_fork.base


async def test_one_that_was_committed_and_not_yet_ended_is_not_committed_again(merging_fork: Fork, theirs: str) -> None:
    _resolve(merging_fork)
    tip = (await leave(merging_fork)).tip
    assert not (merging_fork.folder / "MERGE_HEAD").exists()
    (merging_fork.folder / "MERGE_HEAD").write_text(f"{theirs}\n")
    assert (await leave_twice(merging_fork)).tip == tip
    assert not (merging_fork.folder / "MERGE_HEAD").exists()


@pytest.mark.parametrize("said", ["", "no commit", f"{'0' * 40}\n"])
async def test_what_names_no_commit_is_no_merge(fork: Fork, said: str) -> None:
    (fork.folder / "MERGE_HEAD").write_text(said)
    (fork.path / "new").touch()
    left = await leave(fork)
    assert (left.uncommitted, git(fork.repository, "log", "-1", "--format=%P", fork.branch)) == (1, fork.base)


# -- what counts as resolved

BY_RIGHT = "<<<<<<< a\n=======\n>>>>>>> b\n"


async def _begin(repository: Path, name: str, before: str, attributes: str = "") -> tuple[Fork, str]:
    """A worktree with the merge of a commit in place that conflicts with `main` in one line of a file."""
    commit(repository, {".gitattributes": attributes, name: f"{before}1\n"})
    git(repository, "switch", "-qc", "side")
    theirs = commit(repository, {name: f"{before}2\n"})
    git(repository, "switch", "-q", "main")
    commit(repository, {name: f"{before}3\n"})
    fork = await make_fork(repository)
    await merge_in_worktree.begin(fork.common_dir, fork.path, theirs, "Merge\n")
    return fork, theirs


@pytest.mark.parametrize(
    ("name", "before", "attributes"),
    [
        ("large", "a line that both have\n" * 20_000, ""),
        ("large", "", "large conflict-marker-size=20\n"),
        (os.fsdecode(b"caf\xe9"), "", ""),
        ("by-right", BY_RIGHT, ""),
    ],
)
async def test_marks_that_were_committed_are_found_wherever_they_are_and_however_long(
    repository: Path, name: str, before: str, attributes: str
) -> None:
    fork, theirs = await _begin(repository, name, before, attributes)
    git(fork.path, "commit", "-qam", "marks and all")
    why = await merge_in_worktree.describe_unresolved(fork.common_dir, fork.base, theirs, fork.tip())
    assert why == f"these files still conflict: {printable(name)}"


@pytest.mark.parametrize("how", ["", "add", "commit"])
async def test_marks_that_one_of_the_sides_has_by_right_are_no_conflict(repository: Path, how: str) -> None:
    fork, theirs = await _begin(repository, "manual", BY_RIGHT)
    write(fork.path, "manual", f"{BY_RIGHT}both\n")
    if how:
        git(fork.path, *{"add": ("add", "-A"), "commit": ("commit", "-qam", "resolved")}[how])
    left = await leave_twice(fork)
    assert left.tip
    assert left.conflicts == []
    assert await merge_in_worktree.describe_unresolved(fork.common_dir, fork.base, theirs, left.tip) is None
