"""How the user's repository stands: what must be as before, byte for byte, but for merges that were answered."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adversary.ground import Ground

#: What of the common git folder is shared configuration: it can make git run or write something.
_SHARED = ("config", "config.worktree", "info/attributes", "info/exclude", "info/grafts", "hooks")


@dataclass(frozen=True)
class Standing:
    """A checkout, index, stash and refs, and all around them."""

    head: str
    branch: str  #: of HEAD, as a full ref; '' where it is detached
    refs: dict[str, str]  #: the objects of refs, or what these stand for where they are symbolic
    status: set[str]
    staged: str
    stash: str
    files: dict[str, str] = field(repr=False)  #: what is in each of the checkout's files
    around: dict[str, str] = field(repr=False)  #: the same of all that nobody but the user may change


def look(ground: Ground) -> Standing:
    """Look at all of it."""
    form = ("--porcelain", "-z", "--ignored", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    status = ground.ask("status", *form, check=False)
    branch = ground.ask("symbolic-ref", "-q", "HEAD", check=False)
    return Standing(
        head=ground.ask("rev-parse", "-q", "--verify", "HEAD", check=False),
        branch=branch,
        refs=read_refs(ground),
        status=set(filter(None, status.split("\0"))),
        staged=ground.ask("diff-index", "--cached", "--raw", "--no-abbrev", "--no-renames", "HEAD", check=False),
        stash=ground.ask("stash", "list", "--format=%H", check=False),
        files=dict(_read(ground.repository, ground.repository / ".git")),
        around=dict(_around(ground)),
    )


def read_refs(ground: Ground) -> dict[str, str]:
    """Return each ref's object, or what it stands for where it is symbolic."""
    form = "--format=%(refname) %(if)%(symref)%(then)%(symref)%(else)%(objectname)%(end)"
    listing = ground.ask("for-each-ref", form, check=False)
    return {name: what for name, _, what in (line.partition(" ") for line in listing.splitlines())}


def _around(ground: Ground) -> Iterator[tuple[str, str]]:
    for top in (ground.outside, ground.user):
        yield from ((f"{top.name}/{name}", what) for name, what in _read(top))
    for found in (ground.folder, ground.repository.parent):
        yield from ((f"{found.name}/", name) for name in sorted(os.listdir(found)) if name not in ("trace",))
        yield found.name, " ".join(sorted(os.listdir(found)))


def _read(top: Path, *without: Path) -> Iterator[tuple[str, str]]:
    """What each file below a folder is, by its path from there."""
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if Path(folder, name) not in without]
        for name in (*names, *(name for name in folders if Path(folder, name).is_symlink())):
            if (file := Path(folder, name)) not in without:
                yield str(file.relative_to(top)), _what(file)


def _what(file: Path) -> str:
    found = file.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"leads to {file.readlink()}"
    if not stat.S_ISREG(found.st_mode):
        return f"kind {stat.S_IFMT(found.st_mode):o}"
    return f"{'x' if found.st_mode & 0o100 else '-'} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}"


def remove_pipes(top: Path) -> None:
    """Remove all pipes below a folder, at which git would wait."""
    for folder, _, names in os.walk(top):
        for file in (Path(folder, name) for name in names):
            if stat.S_ISFIFO(file.lstat().st_mode):
                file.unlink()


class Shared:
    """The shared configuration of a repository, as it was, so that it can be put back."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._kept = ground, ground.folder / "kept"
        self._kept.mkdir()
        self._were = self._what()
        for name in _SHARED:
            if (file := ground.common / name).exists():
                (self._kept / name).parent.mkdir(exist_ok=True)
                (shutil.copytree if file.is_dir() else shutil.copy2)(file, self._kept / name)

    def _what(self) -> dict[str, str]:
        found = dict[str, str]()
        for name in _SHARED:
            file = self._ground.common / name
            if os.path.lexists(file):
                found |= {f"{name}/{one}": what for one, what in _read(file)} if file.is_dir() else {name: _what(file)}
        return found

    def put_back(self) -> list[str]:
        """Put it back, with all pipes gone at which git would wait; what was not as before."""
        remove_pipes(self._ground.common)
        changed = sorted(name for name, _ in self._were.items() ^ self._what().items())
        for name in _SHARED:
            file = self._ground.common / name
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
            if (kept := self._kept / name).exists():
                file.parent.mkdir(exist_ok=True)
                (shutil.copytree if kept.is_dir() else shutil.copy2)(kept, file)
        shutil.rmtree(self._kept)
        return changed
