"""Snapshots of the git configuration and hooks that all worktrees of a repository share.

Agents can write these files, and they affect the user's own git. For example, `git config user.name Claude` in an
agent's worktree changes the author of the user's next commit. A snapshot has the content of these files, so that
config_comparison.py can find what changed, and changed files can be restored.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.paths import Home
from forkjoin.core.regular_file import open_regular, read_regular
from forkjoin.core.trust_records import digest
from forkjoin.git.unsafe_config import users_config_files

#: The number of bytes that a snapshot holds of one file, and of all files together, at most.
_FILE_LIMIT, _TOTAL_LIMIT = 256 * 1024, 4 * 1024 * 1024
#: The number of files in a snapshot, and of folders that are searched for submodules' git folders, at most.
_MAX_FILES, _MAX_FOLDERS = 1000, 2000
#: The number of bytes of all files together that are hashed, at most. The remaining files get no digest.
_HASH_LIMIT = 256 * 1024 * 1024
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileState:
    """A file in a snapshot. For a symlink, `size`, `content` and `digest` are those of its target."""

    mode: int  #: the permission bits
    link: str | None  #: the target of a symlink; `None` for any other file
    size: int
    content: bytes | None  #: the file's beginning; `None` if the file is irregular (a pipe, for example) or unreadable
    digest: str | None = None  #: the SHA-256 of the whole content; `None` if that was too large to hash


#: The exceptions that reading a damaged snapshot may raise.
DAMAGED_SNAPSHOT_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError)

#: Files by path. The path is relative to the common git folder, or absolute for a file elsewhere. `None` stands for a
#: file that doesn't exist.
Snapshot = Mapping[str, FileState | None]


# -- taking a snapshot


def take_config_snapshot(common_dir: str, *, user: bool = False) -> Snapshot:
    """Return a snapshot of the files that a repository's worktrees share. Blocks.

    Args:
        common_dir: The repository's common git folder.
        user: Whether to include the user's own configuration, which applies to all repositories.
    """
    root = Path(common_dir)
    files = [*islice(_shared_files(root), _MAX_FILES), *(users_config_files() if user else ())]
    found: dict[str, FileState | None] = {}
    content_left, hash_left = _TOTAL_LIMIT, _HASH_LIMIT
    for file in files:
        state = _read_state(file, min(_FILE_LIMIT, content_left), hash_left)
        content_left -= len(state.content or b"") if state else 0
        hash_left -= state.size if state and state.digest else 0
        found[os.path.relpath(file, root) if file.is_relative_to(root) else str(file)] = state
    return found


def _shared_files(root: Path) -> Iterator[Path]:
    """Yield the shared files of a repository, its submodules and its worktrees."""
    yield from _files_of(root)
    for folder, folders, names in islice(os.walk(root / "modules"), _MAX_FOLDERS):
        if "HEAD" in names:
            folders[:] = [name for name in folders if name == "modules"]
            yield from _files_of(Path(folder))
    with suppress(OSError):
        yield from (entry / "config.worktree" for entry in sorted((root / "worktrees").iterdir()))


def _files_of(git_dir: Path) -> Iterator[Path]:
    """Yield the shared files that one git folder may have."""
    yield from (git_dir / name for name in ("config", "config.worktree", "hooks", "objects/info/alternates"))
    for name in ("info", "hooks"):
        for folder, _, files in os.walk(git_dir / name):
            yield from (Path(folder, file) for file in sorted(files) if _is_relevant(name, file))


def _is_relevant(folder: str, file: str) -> bool:
    """Return whether a file in the folder `info` or `hooks` belongs in a snapshot.

    Sample hooks don't, nor does `info/refs`, which `git update-server-info` writes.
    """
    return not file.endswith(".sample") if folder == "hooks" else file != "refs"


def _read_state(file: Path, limit: int, hash_limit: int) -> FileState | None:
    """Return the state of a file. Return `None` if it doesn't exist or is a folder.

    Args:
        file: The file.
        limit: The number of bytes of its content that the state has at most.
        hash_limit: The size above which the file is not hashed.
    """
    try:
        found = file.lstat()
        link = os.readlink(file) if file.is_symlink() else None  # noqa: PTH115 (pathlib would normalise it)
    except OSError:
        return None
    if file.is_dir() and link is None:
        return None
    size, content, content_digest = found.st_size, None, None
    with suppress(OSError):
        if opened := open_regular(file):
            with opened:
                size = os.fstat(opened.fileno()).st_size
                content = opened.read(limit)
                content_digest = hash_up_to(opened, content, hash_limit)
    return FileState(found.st_mode & 0o777, link, size, content, content_digest)


def hash_up_to(file: BinaryIO, beginning: bytes, limit: int) -> str | None:
    """Return the SHA-256 digest of a file whose beginning was read already.

    Return `None` if the file has more than `limit` bytes. The bytes are counted while they are read, because an agent
    may append to the file without pause.
    """
    sha256, size = hashlib.sha256(beginning), len(beginning)
    while size <= limit:
        if not (chunk := file.read(_CHUNK)):
            return sha256.hexdigest()
        sha256.update(chunk)
        size += len(chunk)
    return None


# -- the snapshot that a person has accepted


def accepted_file(home: Home, common_dir: str) -> Path:
    """Return the path of the file for a repository's accepted snapshot."""
    return home.shared_config / digest(common_dir) / "accepted.json"


def read_accepted(file: Path) -> Snapshot | None:
    """Return the accepted snapshot. Blocks.

    Return `None` if its file is missing or damaged.
    """
    try:
        return from_json(json.loads(read_regular(file) or b""))
    except DAMAGED_SNAPSHOT_ERRORS:
        return None


def find_snapshot_damage(file: Path) -> str | None:
    """Return a warning if the file of an accepted snapshot is damaged. Blocks.

    Return `None` if the file is intact or missing.
    """
    if not os.path.lexists(file) or read_accepted(file) is not None:
        return None
    return (
        f"{file} is damaged. So forkjoin can't tell what changed in the shared git configuration and hooks since a "
        "person accepted them. It still reports changes made while an agent runs. To look at the files and accept them "
        "as they are now, run: forkjoin trust"
    )


def accept(file: Path, snapshot: Snapshot) -> None:
    """Record a snapshot as the accepted one. Blocks."""
    write_json(file, to_json(snapshot))


def accept_as_found(file: Path, common_dir: str) -> None:
    """Accept a repository's present files unless a snapshot exists. Blocks.

    Call this when forkjoin first sees a repository, before an agent runs there.

    Args:
        file: The file of the accepted snapshot.
        common_dir: The repository's common git folder.
    """
    if not file.exists():
        accept(file, take_config_snapshot(common_dir))


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON values, from which `from_json` restores it."""
    return {
        name: file and [file.mode, file.link, file.size, _encode(file.content), file.digest]
        for name, file in snapshot.items()
    }


def from_json(values: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot from which `to_json` made these values."""
    return {name: _decode(*fields) if fields else None for name, fields in values.items()}


def _decode(mode: int, link: str | None, size: int, content: str | None, digest: str | None = None) -> FileState:
    return FileState(mode, link, size, None if content is None else base64.b64decode(content), digest)


def _encode(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def write_json(file: Path, value: object) -> None:
    """Replace a JSON file durably. Blocks.

    Create the file's folder and the folder above it, readable for this user alone.
    """
    for folder in (file.parent.parent, file.parent):  # mkdir with `parents=True` gives the mode only to the last folder
        folder.mkdir(mode=0o700, exist_ok=True)
    write_atomically(file, json.dumps(value).encode(), durable=True)


# -- restoring files


def write_copies(folder: Path, snapshot: Snapshot, names: Sequence[str]) -> None:
    """Write copies of these files of a snapshot below `folder`. Blocks.

    The copies are not executable.

    A file that is cut in the snapshot is written in part, and an irregular file not at all.
    """
    for name in names:
        found = snapshot.get(name)
        if found and found.content is not None:
            file = folder / name
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(file, found.content, durable=True)


def restore_files(common_dir: str, snapshot: Snapshot, names: Sequence[str]) -> list[str]:
    """Restore files of a repository from a snapshot. Blocks.

    Return the names of the files that could not be restored: the snapshot doesn't have their whole content, a folder
    is in their place, or the change is in the target of a symlink.

    Args:
        common_dir: The repository's common git folder.
        snapshot: The snapshot.
        names: The names in the snapshot of the files to restore.
    """
    failed: list[str] = []
    for name in sorted(
        names
    ):  # sorted, so that a symlink in a folder's place is removed before the folder's files are written
        file, old = Path(common_dir, name), snapshot.get(name)
        is_cut = old is not None and old.link is None and (old.content is None or len(old.content) < old.size)
        is_same_link = old is not None and file.is_symlink() and os.readlink(file) == old.link  # noqa: PTH115
        if is_cut or is_same_link or (file.is_dir() and not file.is_symlink()):
            failed.append(name)
        elif old is None:
            file.unlink(missing_ok=True)
        elif old.link is not None:
            file.unlink(missing_ok=True)
            file.symlink_to(old.link)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, old.content or b"", mode=old.mode, durable=True)
    return failed
