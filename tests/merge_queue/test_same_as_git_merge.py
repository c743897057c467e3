"""Merges of files of every kind: the result is the same as of `git merge`, one branch after the other."""

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.git.file_names import printable
from forkjoin.merge_queue.report import MergeReport
from forkjoin.merge_queue.run_merge import MergeRunner
from forkjoin.store.rows import NewMergeJob
from support import random_histories
from support.harness import git
from support.merges import carry_to_its_end, open_daemon, record_branches
from support.random_histories import Commit, File

#: The changes of a branch: the new file at each path, `None` if the file is deleted.
Changes = Mapping[str, File | None]


def text(*lines: str, of: int = 9, run: bool = False, **changed: str) -> File:
    """Return a file with `of` numbered lines, followed by `lines`.

    Keyword arguments such as `l2="x"` change a numbered line.
    """
    numbered = (changed.get(f"l{n}", f"line {n}") for n in range(of))
    return ("100755" if run else "100644"), (*numbered, *lines)


def short(*lines: str) -> File:
    return text(*lines, of=0)


def link(to: str) -> File:
    return "120000", (to,)


_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def _commit_of(digit: str) -> bytes:
    who = "x <x> 0 +0000"
    return f"tree {_TREE}\nauthor {who}\ncommitter {who}\n\n{digit}\n".encode()


def module(digit: str) -> File:
    data = _commit_of(digit)
    return "160000", (hashlib.sha1(b"commit %d\0%s" % (len(data), data)).hexdigest(),)


def _put_modules(here: Path) -> None:
    """Create the submodules of the cases, with their commits."""
    for path in ("d", "m", "n"):
        folder = here / ".git" / "modules" / path
        git(here, "init", "-q", "--bare", str(folder))
        hash_ = ("git", f"--git-dir={folder}", "hash-object", "-w", "--stdin", "-t")
        subprocess.run([*hash_, "tree"], input=b"", check=True, capture_output=True)
        for digit in "123":
            subprocess.run([*hash_, "commit"], input=_commit_of(digit), check=True, capture_output=True)


ODD = [
    "with\nnewline",
    'with "quotes"',
    "back\\slash",
    "tab\t",
    "-x",
    "ünï",
    "u\u0308nï",
    " ",
    ":(top)x",
    "a*",
    "x\x7f",
]
LONG = "/".join(["d" * 240] * 12) + "/file"
EDITED_APART = ({"f": text(l1="one")}, {"f": text(l8="two")})
EDITED_ALIKE = ({"f": text(l1="one")}, {"f": text(l1="two")})

#: The base that both branches start from, in addition to the text `f`, and the changes of each branch.
CASES: dict[str, tuple[Changes, Changes, Changes]] = {
    "a file is edited apart": ({}, *EDITED_APART),
    "a file is edited in the same place": ({}, *EDITED_ALIKE),
    "a file is edited alike": ({}, {"f": text(l1="x")}, {"f": text(l1="x"), "g": short("x")}),
    "a file is moved, and edited": ({}, {"f": None, "g": text()}, {"f": text(l1="two")}),
    "a file is moved to two places": ({}, {"f": None, "g": text()}, {"f": None, "h": text()}),
    "a file is moved alike, and edited apart": (
        *({}, {"f": None, "g": text(l1="one")}, {"f": None, "g": text(l8="two")}),
    ),
    "two files are moved to one place": (
        *({"g": text("g")}, {"f": None, "new": text()}, {"g": None, "new": text("g")}),
    ),
    "a file is moved, and another put in its place": ({}, {"f": None, "g": text()}, {"f": short("other"), "h": text()}),
    "a file is moved, and deleted": ({}, {"f": None, "g": text()}, {"f": None}),
    "a folder is moved, and edited in": (
        *({"d/a": text("a"), "d/b": text("b")}, {"d/a": None, "d/b": None, "e/a": text("a"), "e/b": text("b")}),
        {"d/a": text("a", l1="two")},
    ),
    "a folder is moved, and added to": (
        *({"d/a": text("a"), "d/b": text("b")}, {"d/a": None, "d/b": None, "e/a": text("a"), "e/b": text("b")}),
        {"d/new": text("new")},
    ),
    "a folder is moved to two places": (
        *({"d/a": text("a"), "d/b": text("b")}, {"d/a": None, "d/b": None, "e/a": text("a"), "e/b": text("b")}),
        {"d/a": None, "d/b": None, "g/a": text("a"), "g/b": text("b")},
    ),
    "a name is written otherwise": ({}, {"f": None, "F": text()}, {"f": text(l1="two")}),
    "a file may be run, and is edited": ({}, {"f": text(run=True)}, {"f": text(l1="two")}),
    "a file may be run, on both sides": ({}, {"f": text(run=True)}, {"f": text(l1="two", run=True)}),
    "a file is added with bits that differ": ({}, {"new": text("new")}, {"new": text("new", run=True)}),
    "a file may be run, and becomes a symlink": ({}, {"f": text(run=True)}, {"f": link("g")}),
    "bytes are changed on one side": ({"b": short("\0base")}, {"b": short("\0one")}, {"f": text(l1="two")}),
    "bytes are changed on both sides": ({"b": short("\0base")}, {"b": short("\0one")}, {"b": short("\0two")}),
    "a symlink is added, and a file edited": ({}, {"link": link("f")}, {"f": text(l1="two")}),
    "a symlink becomes a file": ({"link": link("f")}, {"link": short("x")}, {"f": text(l1="two")}),
    "a file becomes a symlink, and is edited": ({}, {"f": link("g")}, {"f": text(l1="two")}),
    "a symlink is led to two places": ({"link": link("f")}, {"link": link("g")}, {"link": link("h")}),
    "a symlink stands in a folder's place": (
        *({"d/a": text("a"), "e/a": short("e")}, {"d/a": None, "d": link("e")}, {"e/a": short("two")}),
    ),
    "a folder stands in a symlink's place": (
        *({"d": link("e"), "e/a": short("e")}, {"d": None, "d/a": short("x")}, {"e/a": short("two")}),
    ),
    "a submodule is added and moved": ({"m": module("1")}, {"m": module("2")}, {"n": module("3")}),
    "a submodule is moved alike": ({"m": module("1")}, {"m": module("2")}, {"m": module("2"), "g": short("x")}),
    "a submodule is moved to two commits": ({"m": module("1")}, {"m": module("2")}, {"m": module("3")}),
    "a submodule goes": ({"m": module("1")}, {"m": None}, {"f": text(l1="two")}),
    "a submodule goes, and is moved": ({"m": module("1")}, {"m": None}, {"m": module("2")}),
    "a submodule stands in a folder's place": ({"d/a": short("x")}, {"d/a": None, "d": module("1")}, {}),
    "a file becomes a folder": ({"g": short("x")}, {"g": None, "g/in": short("y")}, {"f": text(l1="two")}),
    "a file becomes a folder, and is edited": ({}, {"f": None, "f/in": short("y")}, {"f": text(l1="two")}),
    "a folder becomes a file": ({"d/e/a": short("x")}, {"d/e/a": None, "d": short("y")}, {"f": text(l1="two")}),
    "a folder becomes a file, and is added to": ({"d/a": short("x")}, {"d/a": None, "d": short("y")}, {"d/b": text()}),
    "a file and a folder are added": ({}, {"new": short("x")}, {"new/in": short("y")}),
    "empty files": ({"e": short(), "g": short("x")}, {"e": None, "g": short(), "h": short()}, {"h": short()}),
    "odd names": (
        *(dict.fromkeys(ODD[::2], text("odd")), dict.fromkeys(ODD, text("odd", l1="one"))),
        dict.fromkeys(ODD[::2], text("odd", l8="two")),
    ),
    "odd names in conflict": ({}, dict.fromkeys(ODD, text("one")), dict.fromkeys(ODD, text("two"))),
    "a path of thousands of characters": ({}, {LONG: text(l1="one")}, {LONG + "r": text(l8="two"), "f": None}),
    "a file is deleted on both sides": ({"g": short("x")}, {"g": None}, {"g": None, "f": text(l1="two")}),
    "a file is deleted, and edited": ({}, {"f": None}, {"f": text(l1="two")}),
    "a file is added alike": ({}, {"new": text("new")}, {"new": text("new")}),
    "a file is added otherwise": ({}, {"new": short("one")}, {"new": short("two")}),
    "all files go": ({"d/a": short("x")}, {"f": None, "d/a": None}, {}),
    "merge=union": ({".gitattributes": short("f merge=union")}, *EDITED_ALIKE),
    "merge=union comes with the first": (
        {},
        {".gitattributes": short("f merge=union"), "f": text("1")},
        {"f": text("2")},
    ),
    "-merge": ({".gitattributes": short("f -merge")}, *EDITED_APART),
    "eol=crlf": ({".gitattributes": short("* text eol=crlf")}, *EDITED_APART),
    "eol=crlf comes with the first": (
        {},
        {".gitattributes": short("* text eol=crlf"), "g": short("x")},
        {"f": text("2")},
    ),
    "bytes are written otherwise than they are kept": (
        {".gitattributes": short("f working-tree-encoding=UTF-16 ident"), "f": text("$Id$")},
        *({"f": text("$Id$", l1="one")}, {"f": text("$Id$", l8="two")}),
    ),
}


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge: a tree, and the conflicting files of each branch that was left out."""

    tree: str
    conflicts: dict[str, set[str]]


def make(repository: Path, before: Changes, one: Changes, two: Changes) -> None:
    """Make a repository with branches b1 and b2 off main, which is checked out."""
    repository.mkdir()
    git(repository, "init", "-q")
    base = after({"f": text()}, before)
    random_histories.write(
        repository, [Commit((), base), Commit((0,), after(base, one)), Commit((0,), after(base, two))]
    )
    git(repository, "switch", "-q", "-c", "main", "b0")


def after(files: Mapping[str, File], changes: Changes) -> dict[str, File]:
    return {path: file for path, file in {**files, **changes}.items() if file}


def merge_with_git(repository: Path, names: list[str]) -> Merged:
    """Merge these branches with git, one after the other, without those that conflict."""
    conflicts: dict[str, set[str]] = {}
    for name in names:
        argv = ["git", "-C", str(repository), "merge", "-q", "--no-ff", "-m", "x", name]
        if subprocess.run(argv, capture_output=True, check=False).returncode:
            unmerged = git(repository, "diff", "--name-only", "--diff-filter=U", "-z").rstrip("\0").split("\0")
            conflicts[name] = {file.removesuffix("~HEAD").removesuffix(f"~{name}") for file in unmerged}
            git(repository, "reset", "-q", "--hard")
    return Merged(git(repository, "rev-parse", "main^{tree}"), conflicts)


async def merge(home: Home, repository: Path, names: list[str]) -> MergeReport:
    async with open_daemon(home) as reconciler:
        numbers = await record_branches(reconciler.store, repository, names, git(repository, "rev-parse", "b0"))
        new = NewMergeJob(1, "lead", tuple(numbers), "refs/heads/main", None, False, "")
        number = (await reconciler.store.merges.add(new, Call("", ""))).number
        return await carry_to_its_end(MergeRunner(reconciler.services), reconciler.store, number)


def on_disk(top: Path) -> dict[str, tuple[int, bytes | str]]:
    """Return the mode and content of each file, symlink and folder in a checkout."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in top.rglob("*"):
        if (inner := path.relative_to(top)).parts[0] != ".git":
            what = str(path.readlink()) if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
            found[str(inner)] = (path.lstat().st_mode, what)
    return found


@pytest.mark.parametrize("case", CASES)
async def test_a_merge_has_the_same_result_as_git_merge(tmp_path: Path, home: Home, case: str) -> None:
    here, by_git = tmp_path / "here", tmp_path / "by-git"
    make(here, *CASES[case])
    if "submodule" in case:
        _put_modules(here)
    shutil.copytree(here, by_git, symlinks=True)
    merged = merge_with_git(by_git, ["b1", "b2"])
    report = await merge(home, here, ["b1", "b2"])
    assert report.error is None
    assert git(here, "rev-parse", "main^{tree}") == merged.tree
    conflicts = {name: {printable(file) for file in files} for name, files in merged.conflicts.items()}
    assert {f"b{one.id[1:]}": set(one.files) for one in report.conflicted} == conflicts
    assert not any("\0" in hunk for one in report.conflicted for hunk in one.hunks)
    assert on_disk(here) == on_disk(by_git)
    assert git(here, "status", "--porcelain") == git(by_git, "status", "--porcelain")
    assert git(here, "fsck", "--no-dangling") == ""


async def test_an_unrelated_history_is_rejected_and_the_other_branch_is_merged(tmp_path: Path, home: Home) -> None:
    make(tmp_path / "here", *CASES["a file is edited apart"])
    git(tmp_path / "here", "branch", "-f", "b1", git(tmp_path / "here", "commit-tree", "-m", "alone", "b1^{tree}"))
    report = await merge(home, tmp_path / "here", ["b1", "b2"])
    assert [(one.id, one.why) for one in report.rejected] == [
        ("a1", "git can't merge it: fatal: refusing to merge unrelated histories")
    ]
    assert [one.id for one in report.merged] == ["a2"]
