"""Snapshots of the user's repository and everything around it, which a history may change only by merges."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adversary.sandbox import Sandbox

#: Shared configuration in the common git folder. These files can make git run a program or change what it writes.
_SHARED = ("config", "config.worktree", "info/attributes", "info/exclude", "info/grafts", "hooks")


@dataclass(frozen=True)
class Snapshot:
    """A checkout, its index, stash and refs, and the files outside the repository."""

    head: str
    branch: str  #: the full ref of HEAD, or '' if HEAD is detached
    refs: dict[str, str]  #: each ref's object id, or the target of a symbolic ref
    status: set[str]
    staged: str
    stash: str
    files: dict[str, str] = field(repr=False)  #: a description of each file in the checkout
    around: dict[str, str] = field(repr=False)  #: a description of each file that only the user may change


def take_snapshot(sandbox: Sandbox) -> Snapshot:
    """Take a snapshot."""
    form = ("--porcelain", "-z", "--ignored", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    status = sandbox.ask("status", *form, check=False)
    branch = sandbox.ask("symbolic-ref", "-q", "HEAD", check=False)
    return Snapshot(
        head=sandbox.ask("rev-parse", "-q", "--verify", "HEAD", check=False),
        branch=branch,
        refs=read_refs(sandbox),
        status=set(filter(None, status.split("\0"))),
        staged=sandbox.ask("diff-index", "--cached", "--raw", "--no-abbrev", "--no-renames", "HEAD", check=False),
        stash=sandbox.ask("stash", "list", "--format=%H", check=False),
        files=dict(_read(sandbox.repository, sandbox.repository / ".git")),
        around=dict(_around(sandbox)),
    )


def read_refs(sandbox: Sandbox) -> dict[str, str]:
    """Return each ref's object id, or the target of a symbolic ref."""
    form = "--format=%(refname) %(if)%(symref)%(then)%(symref)%(else)%(objectname)%(end)"
    listing = sandbox.ask("for-each-ref", form, check=False)
    return {name: what for name, _, what in (line.partition(" ") for line in listing.splitlines())}


def _around(sandbox: Sandbox) -> Iterator[tuple[str, str]]:
    for top in (sandbox.outside, sandbox.user):
        yield from ((f"{top.name}/{name}", what) for name, what in _read(top))
    for found in (sandbox.folder, sandbox.repository.parent):
        yield from ((f"{found.name}/", name) for name in sorted(os.listdir(found)) if name not in ("trace",))
        yield found.name, " ".join(sorted(os.listdir(found)))


def _read(top: Path, *without: Path) -> Iterator[tuple[str, str]]:
    """Yield the relative path and a description of each file below a folder."""
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if Path(folder, name) not in without]
        for name in (*names, *(name for name in folders if Path(folder, name).is_symlink())):
            if (file := Path(folder, name)) not in without:
                yield str(file.relative_to(top)), _describe(file)


def _describe(file: Path) -> str:
    """Return a description of a file that changes with its type, mode or content."""
    found = file.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"a link to {file.readlink()}"
    if not stat.S_ISREG(found.st_mode):
        return f"kind {stat.S_IFMT(found.st_mode):o}"
    return f"{'x' if found.st_mode & 0o100 else '-'} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def remove_pipes(top: Path) -> None:
    """Remove all named pipes below a folder, because they block git."""
    for folder, _, names in os.walk(top):
        for file in (Path(folder, name) for name in names):
            if stat.S_ISFIFO(file.lstat().st_mode):
                file.unlink()


class Shared:
    """A copy of a repository's shared configuration, from which it can be restored."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox, self._kept = sandbox, sandbox.folder / "kept"
        self._kept.mkdir()
        self._before = self._read_all()
        for name in _SHARED:
            if (file := sandbox.common / name).exists():
                (self._kept / name).parent.mkdir(exist_ok=True)
                (shutil.copytree if file.is_dir() else shutil.copy2)(file, self._kept / name)

    def _read_all(self) -> dict[str, str]:
        found = dict[str, str]()
        for name in _SHARED:
            file = self._sandbox.common / name
            if os.path.lexists(file):
                found |= (
                    {f"{name}/{one}": what for one, what in _read(file)} if file.is_dir() else {name: _describe(file)}
                )
        return found

    def put_back(self) -> list[str]:
        """Restore the configuration, and remove named pipes.

        Return the names of the files that had changed.
        """
        remove_pipes(self._sandbox.common)
        changed = sorted(name for name, _ in self._before.items() ^ self._read_all().items())
        for name in _SHARED:
            file = self._sandbox.common / name
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
            if (kept := self._kept / name).exists():
                file.parent.mkdir(exist_ok=True)
                (shutil.copytree if kept.is_dir() else shutil.copy2)(kept, file)
        shutil.rmtree(self._kept)
        return changed
