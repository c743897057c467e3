"""A lens: our own git folder for reading a repository that nobody trusts.

The lens links to the objects and refs of that repository and to nothing else. git so obeys no setting, hook, filter,
replacement or alternate of it (gitrepository-layout(5)). Where a pipe, a device or a symlink stands among the objects
or refs, the repository counts as unreadable: git would wait there, or be led elsewhere.
"""

import os
import re
import shutil
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CancelScope, to_thread

from forkjoin.core.error import ForkjoinError
from forkjoin.core.regular_file import read_line, read_regular
from forkjoin.git import git
from forkjoin.git.file_names import printable
from forkjoin.git.git_config import GIT_CONFIG

#: Bytes that are read of a configuration; a longer one is an attack.
_CONFIGURATION = 1024 * 1024
#: From how many others a repository may borrow objects.
_ALTERNATES = 20
_SHA256 = re.compile(rb"objectformat\s*=\s*\"?sha256", re.IGNORECASE)


class UnreadableError(ForkjoinError):
    """The repository can't be read safely."""


class UntrustedRepository:
    """Reads one repository."""

    def __init__(self, made: Path, folder: Path, also: Sequence[Path]) -> None:
        quoted = (str(one / "objects").replace("\\", "\\\\").replace('"', '\\"') for one in also)
        self.folder = folder
        self.is_linked = folder != made  #: whether it has the refs that are a worktree's alone, too
        self.id_length = 64 if _SHA256.search((made / "config").read_bytes()) else 40
        self.environment = {
            "GIT_DIR": str(folder),
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(f'"{one}"' for one in quoted),
        }

    async def git(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Return git's stdout, asked in the lens."""
        return await git.output(self.folder, *arguments, stdin=stdin, extra=self.environment)

    async def has(self, commit: str) -> bool:
        code, _, _ = await git.run(self.folder, "cat-file", "-e", f"{commit}^{{commit}}", extra=self.environment)
        return code == 0


@asynccontextmanager
async def open_untrusted(folder: Path, common: Path, also: Sequence[Path] = ()) -> AsyncGenerator[UntrustedRepository]:
    """Look into a repository.

    Args:
        folder: The git folder with HEAD and the index.
        common: The git folder with the objects and refs; the same one except for a linked worktree.
        also: Git folders whose objects are read, too, by their own settings.

    Raises:
        UnreadableError: The repository holds what can't be read safely.
    """
    made = Path(await to_thread.run_sync(lambda: os.path.realpath(tempfile.mkdtemp(prefix="forkjoin-"))))
    try:
        try:
            inner = await to_thread.run_sync(_make, made, folder, common)
        except OSError as error:
            raise UnreadableError(str(error)) from error
        yield UntrustedRepository(made, inner, also)
    finally:
        GIT_CONFIG.forget(made)
        with CancelScope(shield=True):
            await to_thread.run_sync(shutil.rmtree, made)


def _make(made: Path, folder: Path, common: Path) -> Path:
    """Make a lens. Return the folder in it that stands for `folder`."""
    head = read_line(folder / "HEAD")
    if head is None:
        raise UnreadableError("it has no HEAD")
    (made / "HEAD").write_text(f"{head}\n", errors="surrogateescape")
    _check(common / "objects")
    _check(common / "refs")
    reftable = common / "reftable"
    write_config(made, common, is_reftable=reftable.is_dir())
    (made / "objects").mkdir()
    for entry in os.scandir(common / "objects"):
        if entry.name != "info":  # where alternates are named, and a commit graph that need not be true
            (made / "objects" / entry.name).symlink_to(Path(entry.path).absolute())
    (made / "refs").symlink_to((common / "refs").absolute())
    if reftable.is_dir():
        _check(reftable)
        (made / "reftable").symlink_to(reftable.absolute())
    _copy(common / "packed-refs", made / "packed-refs")
    _copy(common / "shallow", made / "shallow")
    _copy(common / "info" / "exclude", made / "info" / "exclude")
    inner = _make_linked(made, folder) if os.path.lexists(folder / "commondir") and reftable.is_dir() else made
    for index in (folder / "index", *folder.glob("sharedindex.*")):
        _copy(index, inner / index.name)
    return inner


def _make_linked(made: Path, folder: Path) -> Path:
    """Link to the table with HEAD and the refs that are a worktree's alone, as git finds it (git-worktree(1))."""
    inner = made / "worktrees" / "one"
    inner.mkdir(parents=True)
    (inner / "commondir").write_text("../..\n")
    (inner / "HEAD").write_text("ref: refs/heads/.invalid\n")
    _check(folder / "reftable")
    (inner / "reftable").symlink_to((folder / "reftable").absolute())
    return inner


def find_alternates(common: Path, trusted: str) -> list[Path]:
    """Find the git folders from which a repository borrows objects (gitrepository-layout(5)), and those from theirs.

    Args:
        common: The git folder of the repository.
        trusted: A git folder that is not looked into.

    Raises:
        UnreadableError: One of them can't be read safely.
    """
    found: dict[Path, None] = {}
    asked = [] if os.path.realpath(common) == trusted else [common]
    while asked:
        objects = asked.pop() / "objects"
        try:
            listing = read_regular(objects / "info" / "alternates", _CONFIGURATION) or b""
            lines = [line for line in listing.splitlines() if line and not line.startswith(b"#")]
            lent = {Path(os.path.realpath(objects / os.fsdecode(line))) for line in lines} - found.keys()
            if len(found) + len(lent) > _ALTERNATES or any(one.name != "objects" for one in lent):
                raise UnreadableError("it borrows objects from too many places, or odd ones")
            others = [one for one in sorted(lent) if one.parent != Path(trusted)]
            for one in others:
                _check(one)
        except OSError as error:
            raise UnreadableError(str(error)) from error
        found |= dict.fromkeys(lent)
        asked += [one.parent for one in others]
    return [one.parent for one in found]


def write_config(made: Path, like: Path, *, is_reftable: bool = False) -> None:
    """Write the configuration of a git folder whose objects have the form of those in `like`."""
    settings = read_regular(like / "config", _CONFIGURATION) or b""
    format_ = "sha256" if _SHA256.search(settings) else "sha1"
    refs = "\trefStorage = reftable\n" if is_reftable else ""
    (made / "config").write_text(
        "[core]\n\trepositoryFormatVersion = 1\n\tbare = false\n\tlogAllRefUpdates = true\n"
        f"[extensions]\n\tobjectFormat = {format_}\n{refs}"
    )


def _check(top: Path) -> None:
    """Raise an UnreadableError unless `top` is a folder of folders and regular files alone."""
    if top.is_symlink() or not top.is_dir():
        raise UnreadableError(f"{printable(str(top))} is no folder")
    for above, folders, names in os.walk(top, onerror=_fail):
        for entry in (Path(above, name) for name in (*folders, *names)):
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise UnreadableError(f"{printable(str(entry))} is neither a folder nor a file")


def _fail(error: OSError) -> None:
    raise error


def _copy(source: Path, target: Path) -> None:
    """Copy a regular file with its times, which an index needs, if the file exists."""
    if os.path.lexists(source):
        if source.is_symlink() or not source.is_file():
            raise UnreadableError(f"{printable(str(source))} is no file")
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(source, target)
