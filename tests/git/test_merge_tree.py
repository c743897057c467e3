"""Two commits are merged in the object store alone, or the files in conflict are named."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from forkjoin.core.error import GitError
from forkjoin.git.merge_tree import TriedMerge, try_merge
from support.branches import GIT_VERSION, blob, commit, everything, files_of
from support.harness import git


@pytest.fixture
def common_dir(repository: Path) -> str:
    commit(
        repository,
        {"lines": "".join(f"{number}\n" for number in range(20)), "folder/a": "a" * 99, "folder/b": "b" * 99},
    )
    git(repository, "branch", "theirs")
    return str(repository / ".git")


async def merge(repository: Path, ours: Callable[[], object], theirs: Callable[[], object]) -> TriedMerge:
    """Merge what `ours` does on main and `theirs` on a branch.

    Check that the repository stays as it was.
    """
    ours()
    git(repository, "commit", "-qam", "ours")
    git(repository, "switch", "-q", "theirs")
    theirs()
    git(repository, "commit", "-qam", "theirs")
    git(repository, "switch", "-q", "main")
    before = everything(repository)
    merged = await try_merge(str(repository / ".git"), "main", "theirs")
    assert everything(repository) == before
    return merged


def put(repository: Path, files: Mapping[str, str | bytes | None]) -> Callable[[], None]:
    def act() -> None:
        for name, content in files.items():
            (repository / name).parent.mkdir(exist_ok=True)
            if content is None:
                (repository / name).unlink()
            else:
                (repository / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        git(repository, "add", "--all")

    return act


def move(repository: Path, old: str, new: str) -> Callable[[], None]:
    def act() -> None:
        (repository / new).parent.mkdir(exist_ok=True)
        git(repository, "mv", old, new)

    return act


def lines(**changed: str) -> str:
    return "".join(f"{changed.get(f'l{number}', number)}\n" for number in range(20))


async def test_changes_to_different_lines_are_merged(repository: Path, common_dir: str) -> None:
    merged = await merge(
        repository, put(repository, {"lines": lines(l2="ours")}), put(repository, {"lines": lines(l15="theirs")})
    )
    assert merged.conflicts == ()
    assert blob(repository, merged.tree, "lines") == lines(l2="ours", l15="theirs").encode()


async def test_changes_to_the_same_line_conflict(repository: Path, common_dir: str) -> None:
    merged = await merge(
        repository, put(repository, {"lines": lines(l2="ours")}), put(repository, {"lines": lines(l2="theirs")})
    )
    assert merged.conflicts == ("lines",)


async def test_a_file_that_one_side_changed_and_the_other_deleted_conflicts(repository: Path, common_dir: str) -> None:
    merged = await merge(repository, put(repository, {"lines": None}), put(repository, {"lines": "x"}))
    assert merged.conflicts == ("lines",)


async def test_a_file_with_an_odd_name_that_both_sides_added_conflicts(repository: Path, common_dir: str) -> None:
    merged = await merge(repository, put(repository, {"a\nb": "x"}), put(repository, {"a\nb": "y"}))
    assert merged.conflicts == ("a\nb",)


async def test_a_file_that_was_moved_to_two_places_conflicts_at_all_three_paths(
    repository: Path, common_dir: str
) -> None:
    merged = await merge(repository, move(repository, "lines", "here"), move(repository, "lines", "there"))
    assert sorted(merged.conflicts) == ["here", "lines", "there"]


async def test_a_moved_file_gets_the_other_sides_change(repository: Path, common_dir: str) -> None:
    merged = await merge(repository, move(repository, "lines", "here"), put(repository, {"lines": lines(l9="theirs")}))
    assert merged.conflicts == ()
    assert blob(repository, merged.tree, "here") == lines(l9="theirs").encode()


async def test_binary_files_conflict(repository: Path, common_dir: str) -> None:
    merged = await merge(repository, put(repository, {"lines": b"\0\1ours"}), put(repository, {"lines": b"\0\1theirs"}))
    assert merged.conflicts == ("lines",)


async def test_a_changed_mode_and_a_changed_text_are_both_merged(repository: Path, common_dir: str) -> None:
    merged = await merge(
        repository, lambda: (repository / "lines").chmod(0o755), put(repository, {"lines": lines(l2="theirs")})
    )
    assert merged.conflicts == ()
    assert "100755 lines" in files_of(repository, merged.tree)


async def test_a_file_in_a_folders_place_conflicts(repository: Path, common_dir: str) -> None:
    merged = await merge(repository, put(repository, {"new": "x"}), put(repository, {"new/file": "y"}))
    assert len(merged.conflicts) == 1
    assert merged.conflicts[0].startswith("new")


async def test_a_submodule_that_both_sides_moved_conflicts(repository: Path, common_dir: str) -> None:
    commits = [git(repository, "commit-tree", "-m", text, "HEAD^{tree}") for text in ("base", "ours", "theirs")]

    def point(number: int) -> Callable[[], None]:
        return lambda: _point(repository, commits[number])

    point(0)()
    git(repository, "commit", "-qm", "with a submodule")
    git(repository, "branch", "-qf", "theirs")
    merged = await merge(repository, point(1), point(2))
    assert merged.conflicts == ("library",)


def _point(repository: Path, commit: str) -> None:
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},library")


async def test_a_split_folder_to_which_the_other_side_adds_a_file_conflicts(repository: Path, common_dir: str) -> None:
    def split() -> None:
        move(repository, "folder/a", "one/a")()
        move(repository, "folder/b", "two/b")()

    merged = await merge(repository, split, put(repository, {"folder/c": "c"}))
    assert merged.conflicts == ("folder",)


@pytest.mark.skipif(GIT_VERSION < (2, 41), reason="git merge-tree finds no attributes")
async def test_the_attributes_of_our_side_decide_how_files_are_merged(repository: Path, common_dir: str) -> None:
    commit(repository, {".gitattributes": "lines merge=union\n"})
    git(repository, "branch", "-qf", "theirs")
    merged = await merge(
        repository, put(repository, {"lines": lines(l19="ours")}), put(repository, {"lines": lines(l19="theirs")})
    )
    assert merged.conflicts == ()
    assert blob(repository, merged.tree, "lines").endswith(b"18\nours\ntheirs\n")


async def test_merging_a_contained_branch_returns_the_present_tree(repository: Path, common_dir: str) -> None:
    tree = git(repository, "rev-parse", "main^{tree}")
    assert await try_merge(common_dir, "main", "theirs") == TriedMerge(tree, ())


async def test_unrelated_histories_are_refused(repository: Path, common_dir: str) -> None:
    alone = git(repository, "commit-tree", "-m", "alone", "HEAD^{tree}")
    with pytest.raises(GitError, match="unrelated histories"):
        await try_merge(common_dir, "main", alone)
