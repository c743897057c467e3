"""A merge is begun in a worktree, and the autocommit completes a resolved merge."""

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
    """A worktree with the merge of `theirs` in progress."""
    fork = await make_fork(repository)
    await merge_in_worktree.begin(fork.common_dir, fork.path, theirs, "Merge\n")
    return fork


# -- beginning a merge


def _merge_state(fork: Fork) -> tuple[str, str, dict[str, bytes]]:
    files = {path.name: path.read_bytes() for path in fork.path.iterdir() if path.name != ".git"}
    return git(fork.path, "ls-files", "--stage"), git(fork.path, "rev-parse", "MERGE_HEAD"), files


async def test_a_begun_merge_has_the_conflicts_of_git_with_their_base(merging_fork: Fork, theirs: str) -> None:
    _, merged, files = _merge_state(merging_fork)
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


async def test_an_interrupted_merge_begins_again(merging_fork: Fork, theirs: str) -> None:
    before = _merge_state(merging_fork)
    (merging_fork.folder / "MERGE_HEAD").unlink()
    git(merging_fork.path, "read-tree", "HEAD")
    for name in ("shared.txt", "new", "edited"):
        write(merging_fork.path, name, "half\n")
    (merging_fork.folder / "index.lock").touch()
    await merge_in_worktree.begin(merging_fork.common_dir, merging_fork.path, theirs, "Merge\n")
    assert _merge_state(merging_fork) == before


async def test_hooks_and_the_users_merge_settings_are_ignored(repository: Path, theirs: str, tmp_path: Path) -> None:
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


async def test_a_clean_merge_is_not_committed_either(repository: Path) -> None:
    fork = await make_fork(repository)
    theirs = commit(repository, {"new": "x\n"})
    await merge_in_worktree.begin(fork.common_dir, fork.path, theirs, "Merge\n")
    assert (fork.tip(), git(fork.path, "rev-parse", "MERGE_HEAD")) == (fork.base, theirs)
    await leave_twice(fork)
    assert git(repository, "log", "-1", "--format=%P", fork.branch).split() == [fork.base, theirs]


# -- the autocommit of a merge in progress


def _resolve(fork: Fork) -> None:
    for name in ("shared.txt", "binary", "gone"):
        write(fork.path, name, "both\n")
    (fork.path / "edited").unlink()


@pytest.mark.parametrize("added", [True, False])
async def test_a_resolved_merge_becomes_a_merge_commit(merging_fork: Fork, theirs: str, *, added: bool) -> None:
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


async def test_a_merge_resolved_without_changes_becomes_a_merge_commit(merging_fork: Fork, theirs: str) -> None:
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
async def test_files_with_conflicts_are_named_and_committed_without_the_merge(
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
async def test_a_submodule_conflict_is_named_and_other_files_are_committed(repository: Path, *, touched: bool) -> None:
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
async def test_a_resolution_outside_the_sparse_checkout_is_committed(repository: Path, resolved: str | None) -> None:
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
async def test_no_conflict_counts_as_resolved_after_an_interrupted_commit(
    merging_fork: Fork, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        full = 'echo "fatal: No space left on device" >&2; exit 128'
        put_git(tmp_path / "bin", patch, f'case " $* " in *" {step} "*) {REAL_GIT} "$@"; {full};; esac')
        with pytest.raises(GitError):
            await leave(merging_fork)
    await leave_twice(merging_fork)
    assert git(merging_fork.repository, "log", "-1", "--format=%P", merging_fork.branch) == merging_fork.base


async def test_a_committed_merge_that_was_not_ended_is_not_committed_again(merging_fork: Fork, theirs: str) -> None:
    _resolve(merging_fork)
    tip = (await leave(merging_fork)).tip
    assert not (merging_fork.folder / "MERGE_HEAD").exists()
    (merging_fork.folder / "MERGE_HEAD").write_text(f"{theirs}\n")
    assert (await leave_twice(merging_fork)).tip == tip
    assert not (merging_fork.folder / "MERGE_HEAD").exists()


@pytest.mark.parametrize("said", ["", "no commit", f"{'0' * 40}\n"])
async def test_a_merge_head_that_names_no_commit_is_ignored(fork: Fork, said: str) -> None:
    (fork.folder / "MERGE_HEAD").write_text(said)
    (fork.path / "new").touch()
    left = await leave(fork)
    assert (left.uncommitted, git(fork.repository, "log", "-1", "--format=%P", fork.branch)) == (1, fork.base)


# -- resolved and unresolved files

MARKERS_AS_CONTENT = "<<<<<<< a\n=======\n>>>>>>> b\n"


async def _begin(repository: Path, name: str, before: str, attributes: str = "") -> tuple[Fork, str]:
    """Begin a merge that conflicts in one line of a file.

    Return the worktree and the merged commit.
    """
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
        ("by-right", MARKERS_AS_CONTENT, ""),
    ],
)
async def test_committed_conflict_markers_are_found(repository: Path, name: str, before: str, attributes: str) -> None:
    fork, theirs = await _begin(repository, name, before, attributes)
    git(fork.path, "commit", "-qam", "marks and all")
    why = await merge_in_worktree.describe_unresolved(fork.common_dir, fork.base, theirs, fork.tip())
    assert why == f"these files still conflict: {printable(name)}"


@pytest.mark.parametrize("how", ["", "add", "commit"])
async def test_conflict_markers_that_are_content_of_one_side_are_no_conflict(repository: Path, how: str) -> None:
    fork, theirs = await _begin(repository, "manual", MARKERS_AS_CONTENT)
    write(fork.path, "manual", f"{MARKERS_AS_CONTENT}both\n")
    if how:
        git(fork.path, *{"add": ("add", "-A"), "commit": ("commit", "-qam", "resolved")}[how])
    left = await leave_twice(fork)
    assert left.tip
    assert left.conflicts == []
    assert await merge_in_worktree.describe_unresolved(fork.common_dir, fork.base, theirs, left.tip) is None
