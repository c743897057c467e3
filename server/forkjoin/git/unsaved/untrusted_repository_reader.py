"""A reader of untrusted repositories, which ignores their configuration.

The reader makes a temporary git folder that has symlinks to the repository's objects and refs, and copies of its index
and of a few lists. So git uses none of the repository's settings, hooks, filters, replacements or alternates
(gitrepository-layout(5)). If there is a named pipe, a device or a symlink among the objects or refs, the repository
counts as unreadable: git would block on it, or read files elsewhere.
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
from forkjoin.git.git_folder import walk_strictly
from forkjoin.git.objects import quote_alternate

#: Bytes that are read of a configuration or a list of alternates. Only an attacker makes a longer file.
_FILE_LIMIT = 1024 * 1024
#: The most repositories from which a repository may borrow objects, directly or indirectly.
_MAX_ALTERNATES = 20
_SHA256 = re.compile(rb"objectformat\s*=\s*\"?sha256", re.IGNORECASE)


class UnreadableError(ForkjoinError):
    """A repository can't be read safely. The message says why."""


class RepositoryReader:
    """A reader of one untrusted repository, which `open_untrusted` makes."""

    def __init__(self, made: Path, folder: Path, alternates: Sequence[Path]) -> None:
        self.folder = folder  #: the temporary git folder in which git is called
        self.is_linked = folder != made  #: whether git also sees the refs that a linked worktree has for itself
        #: the number of hex digits in an object id
        self.id_length = 64 if _SHA256.search((made / "config").read_bytes()) else 40
        quoted = (quote_alternate(str(git_dir / "objects")) for git_dir in alternates)
        self.environment = {
            "GIT_DIR": str(folder),
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(quoted),
        }

    async def output(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run git in the temporary git folder as `git.output` does. Return git's stdout."""
        return await git.output(self.folder, *arguments, stdin=stdin, extra=self.environment)

    async def has_commit(self, commit: str) -> bool:
        """Return whether the repository or one of the given alternates has a commit."""
        code, _, _ = await git.run(self.folder, "cat-file", "-e", f"{commit}^{{commit}}", extra=self.environment)
        return code == 0


@asynccontextmanager
async def open_untrusted(
    folder: Path, common: Path, alternates: Sequence[Path] = ()
) -> AsyncGenerator[RepositoryReader]:
    """Open a reader of an untrusted repository.

    Args:
        folder: The git folder with HEAD and the index.
        common: The git folder with the objects and refs. It differs from `folder` only for a linked worktree.
        alternates: Git folders whose objects git reads too.

    Raises:
        UnreadableError: The repository can't be read safely.
    """
    made = Path(await to_thread.run_sync(lambda: os.path.realpath(tempfile.mkdtemp(prefix="forkjoin-"))))
    try:
        try:
            inner = await to_thread.run_sync(_fill_git_folder, made, folder, common)
        except OSError as error:
            raise UnreadableError(str(error)) from error
        yield RepositoryReader(made, inner, alternates)
    finally:
        GIT_CONFIG.forget(made)
        with CancelScope(shield=True):
            await to_thread.run_sync(shutil.rmtree, made)


def _fill_git_folder(made: Path, folder: Path, common: Path) -> Path:
    """Fill a temporary git folder with symlinks and copies. Blocks.

    Args:
        made: The temporary git folder.
        folder: The git folder with HEAD and the index.
        common: The git folder with the objects and refs.

    Returns:
        The folder in which git is called: `made`, or a worktree's git folder in it.
    """
    head = read_line(folder / "HEAD")
    if head is None:
        raise UnreadableError("it has no readable HEAD")
    (made / "HEAD").write_text(f"{head}\n", errors="surrogateescape")
    _check(common / "objects")
    _check(common / "refs")
    reftable = common / "reftable"
    write_config(made, common, is_reftable=reftable.is_dir())
    (made / "objects").mkdir()
    for entry in os.scandir(common / "objects"):
        if entry.name != "info":  # info/ names alternates, and may have a forged commit graph
            (made / "objects" / entry.name).symlink_to(Path(entry.path).absolute())
    (made / "refs").symlink_to((common / "refs").absolute())
    if reftable.is_dir():
        _check(reftable)
        (made / "reftable").symlink_to(reftable.absolute())
    _copy(common / "packed-refs", made / "packed-refs")
    _copy(common / "shallow", made / "shallow")
    _copy(common / "info" / "exclude", made / "info" / "exclude")
    inner = _link_worktree(made, folder) if os.path.lexists(folder / "commondir") and reftable.is_dir() else made
    for index in (folder / "index", *folder.glob("sharedindex.*")):
        _copy(index, inner / index.name)
    return inner


def _link_worktree(made: Path, folder: Path) -> Path:
    """Make a linked worktree's git folder in a temporary git folder. Return the path.

    It has a symlink to the reftable of `folder`, which has the worktree's HEAD and the refs that only the worktree has
    (git-worktree(1)).
    """
    inner = made / "worktrees" / "one"
    inner.mkdir(parents=True)
    (inner / "commondir").write_text("../..\n")
    (inner / "HEAD").write_text("ref: refs/heads/.invalid\n")
    _check(folder / "reftable")
    (inner / "reftable").symlink_to((folder / "reftable").absolute())
    return inner


def find_alternates(common: Path, trusted: str) -> list[Path]:
    """Find the git folders from which a repository borrows objects. Blocks.

    It may do so directly or indirectly. Each folder is named in a file `objects/info/alternates`
    (gitrepository-layout(5)).

    Args:
        common: The common git folder of the repository. trusted: The real path of the common git folder of the agent's
            repository. It may be among the found folders, but its own alternates are not read.

    Raises:
        UnreadableError: One of these folders can't be read safely.
    """
    found: dict[Path, None] = {}
    waiting = [] if os.path.realpath(common) == trusted else [common]
    while waiting:
        objects = waiting.pop() / "objects"
        try:
            listing = read_regular(objects / "info" / "alternates", _FILE_LIMIT) or b""
            lines = [line for line in listing.splitlines() if line and not line.startswith(b"#")]
            lent = {Path(os.path.realpath(objects / os.fsdecode(line))) for line in lines} - found.keys()
            if len(found) + len(lent) > _MAX_ALTERNATES or any(folder.name != "objects" for folder in lent):
                raise UnreadableError(
                    f"it borrows objects from more than {_MAX_ALTERNATES} folders, or from a folder not called objects"
                )
            untrusted = [folder for folder in sorted(lent) if folder.parent != Path(trusted)]
            for folder in untrusted:
                _check(folder)
        except OSError as error:
            raise UnreadableError(str(error)) from error
        found |= dict.fromkeys(lent)
        waiting += [folder.parent for folder in untrusted]
    return [folder.parent for folder in found]


def write_config(made: Path, like: Path, *, is_reftable: bool = False) -> None:
    """Write the configuration of a new git folder. Blocks.

    Args:
        made: The new git folder.
        like: A git folder that has the wanted object format (sha1 or sha256).
        is_reftable: Whether the refs of the new git folder are in a reftable.
    """
    config = read_regular(like / "config", _FILE_LIMIT) or b""
    object_format = "sha256" if _SHA256.search(config) else "sha1"
    refs = "\trefStorage = reftable\n" if is_reftable else ""
    (made / "config").write_text(
        "[core]\n\trepositoryFormatVersion = 1\n\tbare = false\n\tlogAllRefUpdates = true\n"
        f"[extensions]\n\tobjectFormat = {object_format}\n{refs}"
    )


def _check(top: Path) -> None:
    """Raise an UnreadableError unless `top` contains only folders and regular files.

    Raise an OSError if a folder can't be read.
    """
    if top.is_symlink() or not top.is_dir():
        raise UnreadableError(f"{printable(str(top))} is not a folder")
    for above, folders, names in walk_strictly(top):
        for entry in (Path(above, name) for name in (*folders, *names)):
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise UnreadableError(f"{printable(str(entry))} is neither a folder nor a file")


def _copy(source: Path, target: Path) -> None:
    """Copy a file if it exists. Raise an UnreadableError if it is not a regular file.

    The times are copied too, because git compares the time of the index with those of the files in it.
    """
    if os.path.lexists(source):
        if source.is_symlink() or not source.is_file():
            raise UnreadableError(f"{printable(str(source))} is not a regular file")
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(source, target)
