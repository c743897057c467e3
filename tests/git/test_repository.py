"""The state of a repository is read without changing the repository."""

import os
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.git.repository import Checkout, list_commits, read_checkout
from support.branches import GIT_VERSION, commit, everything, sign
from support.harness import git


def head_of(repository: Path) -> str:
    return git(repository, "rev-parse", "HEAD")


def clean(repository: Path, top: Path | None = None) -> Checkout:
    """Return the expected state of the fixture's repository, read from `top`."""
    return Checkout(
        str(repository / ".git"), str(top or repository), "refs/heads/main", head_of(repository), dirty=False
    )


async def test_a_checkout_is_read_from_its_root(repository: Path) -> None:
    assert await read_checkout(repository) == clean(repository)


async def test_a_checkout_is_read_from_a_nested_folder(repository: Path) -> None:
    (repository / "a" / "b").mkdir(parents=True)
    assert await read_checkout(repository / "a" / "b") == clean(repository)


async def test_a_checkout_is_read_through_a_symlink_to_one_of_its_folders(repository: Path, tmp_path: Path) -> None:
    (repository / "a").mkdir()
    (tmp_path / "link").symlink_to(repository / "a")
    assert await read_checkout(tmp_path / "link") == clean(repository)


async def test_a_git_folder_is_no_worktree_of_itself(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / ".git")
    assert (await read_checkout(repository / ".git" / "hooks")).top is None


async def test_a_linked_worktree_is_read(repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    found = await read_checkout(tmp_path / "side")
    assert (found.common_dir, found.top, found.branch) == (
        *(str(repository / ".git"), str(tmp_path / "side"), "refs/heads/side"),
    )


async def test_a_bare_repository_and_its_worktree_are_read(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(repository, "clone", "-q", "--bare", ".", str(bare))
    assert await read_checkout(bare, check_dirty=True) == Checkout(
        str(bare), None, "refs/heads/main", head_of(repository), dirty=False
    )
    git(bare, "worktree", "add", "-q", str(tmp_path / "side"), "main")
    assert await read_checkout(tmp_path / "side") == Checkout(
        str(bare), str(tmp_path / "side"), "refs/heads/main", head_of(repository), dirty=False
    )


async def test_a_submodule_is_read_as_a_repository_of_its_own(repository: Path, tmp_path: Path) -> None:
    git(repository, "clone", "-q", ".", str(tmp_path / "library"))
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    found = await read_checkout(repository / "lib")
    assert (found.common_dir, found.top) == (str(repository / ".git" / "modules" / "lib"), str(repository / "lib"))


async def test_a_checkout_with_its_git_folder_elsewhere_is_read(tmp_path: Path, user: Path) -> None:
    git(tmp_path, "init", "-q", "--separate-git-dir", str(tmp_path / "git"), "work")
    found = await read_checkout(tmp_path / "work")
    assert (found.common_dir, found.top) == (str(tmp_path / "git"), str(tmp_path / "work"))


async def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "switch", "-q", "--detach")
    found = await read_checkout(repository)
    assert (found.branch, found.head) == (None, head_of(repository))


async def test_a_repository_without_commits_has_no_head(tmp_path: Path, user: Path) -> None:
    git(tmp_path, "init", "-q", "empty")
    (tmp_path / "empty" / "new").touch()
    assert await read_checkout(tmp_path / "empty", check_dirty=True) == Checkout(
        str(tmp_path / "empty" / ".git"), str(tmp_path / "empty"), "refs/heads/main", None, dirty=False
    )


@pytest.mark.skipif(GIT_VERSION < (2, 45), reason="git knows no reftable")
@pytest.mark.parametrize("form", ["--ref-format=reftable", "--object-format=sha256"])
async def test_repositories_in_gits_newer_formats_are_read(tmp_path: Path, user: Path, form: str) -> None:
    git(tmp_path, "init", "-q", form, "new")
    base, tip = (commit(tmp_path / "new", {"file": text}, text) for text in ("one", "two"))
    found = await read_checkout(tmp_path / "new")
    assert (found.branch, found.head) == ("refs/heads/main", tip)
    assert await list_commits(found.common_dir, base, tip, 9) == [f"{tip[:10]} two"]


async def test_a_branch_whose_name_is_not_utf_8_is_read(repository: Path) -> None:
    git(repository, "switch", "-qc", os.fsdecode(b"br\xff"))
    assert (await read_checkout(repository)).branch == os.fsdecode(b"refs/heads/br\xff")


async def test_git_variables_of_this_process_are_ignored(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "other")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    found = await read_checkout(repository, check_dirty=True)
    assert (found.common_dir, found.top) == (str(repository / ".git"), str(repository))


async def test_a_symbolic_branch_is_read_as_its_target(repository: Path) -> None:
    git(repository, "symbolic-ref", "refs/heads/master", "refs/heads/main")
    git(repository, "symbolic-ref", "HEAD", "refs/heads/master")
    assert (await read_checkout(repository)).branch == "refs/heads/main"


@pytest.mark.parametrize("folder", ["", "none"])
async def test_a_folder_in_no_repository_is_refused_with_advice(tmp_path: Path, folder: str) -> None:
    with pytest.raises(CallerError, match="is not in a git repository"):
        await read_checkout(tmp_path / folder)


async def test_a_repository_that_git_will_not_use_is_refused_with_gits_message(repository: Path) -> None:
    (repository / ".git" / "config").write_text("[core]\nrepositoryformatversion = 99\n")
    with pytest.raises(CallerError, match=r"git will not use the repository of .*99"):
        await read_checkout(repository)


# -- dirt


async def dirty(repository: Path) -> bool:
    """Return whether the checkout is dirty. Check that the repository stays as it was."""
    before, stat = everything(repository), (repository / ".git" / "index").stat()
    found = await read_checkout(repository, check_dirty=True)
    after = (repository / ".git" / "index").stat()
    assert (stat.st_ino, stat.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert everything(repository) == before
    return found.dirty


async def test_untracked_and_touched_files_do_not_make_a_checkout_dirty(repository: Path) -> None:
    (repository / "new").touch()
    os.utime(repository / "shared.txt", (1, 1))
    assert not await dirty(repository)


async def test_edited_and_staged_files_make_a_checkout_dirty(repository: Path) -> None:
    (repository / "shared.txt").write_text("edited\n")
    assert await dirty(repository)
    git(repository, "add", ".")
    assert await dirty(repository)


async def test_a_file_changed_within_the_second_of_its_commit_makes_a_checkout_dirty(repository: Path) -> None:
    stat = (repository / "shared.txt").stat()
    (repository / "shared.txt").write_text("two\none\nthree\n")
    os.utime(repository / "shared.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.utime(repository / ".git" / "index", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert await dirty(repository)


# -- commits


async def test_commits_are_listed_newest_first_up_to_the_limit(repository: Path) -> None:
    base = head_of(repository)
    made = [commit(repository, {"file": str(number)}, f"number {number}\n\nmore") for number in range(4)]
    told = await list_commits(str(repository / ".git"), base, made[-1], 3)
    assert told == [f"{made[number][:10]} number {number}" for number in (3, 2, 1)]


async def test_no_commit_is_listed_between_a_commit_and_itself_or_an_ancestor(repository: Path) -> None:
    base = head_of(repository)
    tip = commit(repository, {"file": "x"})
    assert await list_commits(str(repository / ".git"), tip, tip, 9) == []
    assert await list_commits(str(repository / ".git"), tip, base, 9) == []


async def test_a_subject_is_one_plain_line_despite_the_users_settings(repository: Path, tmp_path: Path) -> None:
    base = head_of(repository)
    git(repository, "commit", "-q", "--allow-empty", "-m", "a\nb\n\nc")
    tip = sign(repository, tmp_path / "told")
    git(repository, "config", "color.ui", "always")
    assert await list_commits(str(repository / ".git"), base, tip, 9) == [f"{tip[:10]} a b"]
    assert not (tmp_path / "told").exists()
