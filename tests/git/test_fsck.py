"""Objects that branches add are checked as `git fsck --strict` checks them."""

import subprocess
from pathlib import Path

import pytest
from forkjoin.git.fsck import find_malformed
from support.branches import commit
from support.harness import git


def make_object(repository: Path, kind: str, data: bytes) -> str:
    """Write an object without git's checks. Return its id."""
    write = ["git", "-C", str(repository), "hash-object", "-t", kind, "-w", "--literally", "--stdin"]
    return subprocess.run(write, input=data, capture_output=True, check=True).stdout.decode().strip()


def make_tree(repository: Path, *entries: tuple[str, bytes, str]) -> str:
    """Write a tree of entries (mode, name, object) without git's checks.

    Return its id.
    """
    data = b"".join(b"%s %s\0%s" % (mode.encode(), name, bytes.fromhex(one)) for mode, name, one in entries)
    return make_object(repository, "tree", data)


def put(repository: Path, *entries: tuple[str, bytes, str]) -> str:
    """Commit a tree of these entries on top of main. Return the commit."""
    return git(repository, "commit-tree", "-p", "main", "-m", "odd", make_tree(repository, *entries))


async def find(repository: Path, tmp_path: Path, *tips: str) -> dict[str, str]:
    aside = tmp_path / "aside"
    aside.mkdir(exist_ok=True)
    before = {file: file.stat().st_mtime_ns for file in (repository / ".git" / "objects").rglob("*")}
    found = await find_malformed(str(repository / ".git"), git(repository, "rev-parse", "main"), tips, aside)
    assert {file: file.stat().st_mtime_ns for file in (repository / ".git" / "objects").rglob("*")} == before
    assert list(aside.iterdir()) == []
    return found


NAMES = [b".git", b".GIT", b"git~1", b".git ", ".g\u200cit".encode(), b"..", b".", b"a/b", b""]


@pytest.mark.parametrize("name", NAMES)
async def test_a_tree_with_a_name_that_git_refuses_is_found(repository: Path, tmp_path: Path, name: bytes) -> None:
    tree = git(repository, "rev-parse", "main^{tree}")
    bad = put(repository, ("40000", name, tree))
    assert list(await find(repository, tmp_path, bad)) == [bad]


async def test_other_malformed_objects_are_found(repository: Path, tmp_path: Path) -> None:
    tree = git(repository, "rev-parse", "main^{tree}")
    file = git(repository, "rev-parse", "main:README.md")
    modules = make_object(repository, "blob", b'[submodule "../../x"]\n\tpath = x\n\turl = x\n')
    twice = put(repository, ("100644", b"a", file), ("100644", b"a", file))
    padded = put(repository, ("040000", b"a", tree))
    missing = put(repository, ("100644", b"a", "1" * 40))
    link = put(repository, ("120000", b".gitmodules", file))
    escaping = put(repository, ("100644", b".gitmodules", modules))
    header = f"tree {tree}\nparent {git(repository, 'rev-parse', 'main')}\n"
    nobodys = make_object(repository, "commit", f"{header}committer x <x@x> 1 +0000\n\nx\n".encode())
    bad = (twice, padded, missing, link, escaping, nobodys)
    assert list(await find(repository, tmp_path, *bad)) == list(bad)


async def test_one_malformed_object_among_many_is_found_with_gits_message(repository: Path, tmp_path: Path) -> None:
    base = git(repository, "rev-parse", "main")
    good = [commit(repository, {f"file{n}": "x\n"}) for n in range(5)]
    git(repository, "reset", "-q", "--hard", base)
    bad = put(repository, ("40000", b".git", git(repository, "rev-parse", "main^{tree}")))
    above = git(repository, "commit-tree", "-p", bad, "-m", "mended", git(repository, "rev-parse", "main^{tree}"))
    found = await find(repository, tmp_path, *good[:2], bad, *good[2:], above)
    assert list(found) == [bad, above]
    assert all("hasDotgit: contains '.git'" in words for words in found.values())
    mended = git(repository, "rev-parse", f"{above}^{{tree}}")
    assert await find(repository, tmp_path, *good, mended) == {}


async def test_objects_of_the_target_are_not_checked(repository: Path, tmp_path: Path) -> None:
    file = git(repository, "rev-parse", "main:README.md")
    old = make_tree(repository, ("100644", b"file", file))
    git(repository, "update-ref", "refs/heads/main", put(repository, ("040000", b"old", old), ("100644", b"z", file)))
    moved = put(repository, ("40000", b"deep", make_tree(repository, ("40000", b"old", old))), ("100644", b"z", file))
    assert await find(repository, tmp_path, moved) == {}


async def test_severities_come_from_the_user_not_the_repository(repository: Path, tmp_path: Path) -> None:
    bad = put(repository, ("040000", b"a", git(repository, "rev-parse", "main^{tree}")))
    git(repository, "config", "fsck.zeroPaddedFilemode", "ignore")
    assert list(await find(repository, tmp_path, bad)) == [bad]
    git(repository, "config", "--global", "fsck.zeroPaddedFilemode", "ignore")
    assert await find(repository, tmp_path, bad) == {}


async def test_missing_objects_of_a_partial_clone_are_not_fetched(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{repository}", str(clone))
    file = git(repository, "rev-parse", "main:README.md")
    tip = put(clone, ("100644", b"README.md", file))
    git(repository, "config", "uploadpack.allowFilter", "false")
    repository.rename(tmp_path / "away")
    assert await find(clone, tmp_path, tip) == {}
