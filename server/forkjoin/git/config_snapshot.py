"""Snapshots of shared git configuration and hooks: comparing and restoring them.

Agents may write there, and what they write counts for the user's own git: `git config user.name Claude` in an agent's
worktree makes the user's next commit Claude's. A snapshot holds the content of these small files. Two snapshots tell
what changed between them, by entry where a file is a configuration. What git and honest programs write there as a
matter of course, such as a new branch's upstream, is no change.
"""

import base64
import hashlib
import json
import os
import re
from collections import Counter
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
from forkjoin.git import git
from forkjoin.git.file_names import printable
from forkjoin.git.unsafe_config import users_config_files

#: Bytes of a file that are kept, and of all; how many files and submodules' folders are looked at.
_BYTES, _BYTES_OF_ALL, _FILES, _FOLDERS = 256 * 1024, 4 * 1024 * 1024, 1000, 2000
#: Bytes that are hashed, of all files together; of what is beyond, only the size and the beginning are compared.
_HASHED = 256 * 1024 * 1024
_CHUNK = 1024 * 1024
#: Characters of a value that are shown.
_VALUE = 80

_BRANCH = re.compile(
    r"branch\.(?P<name>.*)\.(?:remote|merge|rebase|description|vscode-merge-base|gh-merge-base)", re.DOTALL
)
_USUAL = re.compile(
    r"submodule\..*\.(?:url|active)|lfs\.(?:repositoryformatversion|.*\.(?:access|locksverify))|remote\..*\.gh-resolved",
    re.DOTALL,
)
#: What `git sparse-checkout` sets for one worktree alone.
_SPARSE = re.compile(r"core\.sparsecheckout(?:cone)?|index\.sparse")
_SECRET = re.compile(r"extraheader|cookie|token|secret|password|passwd", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was found. `content` is its beginning, or `None` where it is no regular file or can't be read."""

    mode: int
    link: str | None  #: the target of a symlink; all that follows is then the target's
    size: int
    content: bytes | None
    digest: str | None = None  #: of all of its content, or `None` where that was not hashed


#: What reading a damaged snapshot raises.
DAMAGED_SNAPSHOT_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError)

#: Files by their path: relative to the common git folder, or absolute. `None`: it was looked for, and is not there.
Snapshot = Mapping[str, File | None]


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A file that changed, or an entry in it, if it has a `key`."""

    file: str
    what: str
    key: str = ""

    @property
    def is_users(self) -> bool:
        """Whether the file is of the user's own configuration, which all repositories share."""
        return self.file.startswith("/")

    def __str__(self) -> str:
        return f"{printable(self.file)}: {self.what}"


# -- taking a snapshot


def take_snapshot(common_dir: str, *, user: bool = False) -> Snapshot:
    """Return a snapshot of a repository's shared files, and of `user`'s. Blocks."""
    root = Path(common_dir)
    files = [*islice(_shared_files(root), _FILES), *(users_config_files() if user else ())]
    found: dict[str, File | None] = {}
    room, hashed = _BYTES_OF_ALL, _HASHED
    for file in files:
        read = _read(file, min(_BYTES, room), hashed)
        room -= len(read.content or b"") if read else 0
        hashed -= read.size if read and read.digest else 0
        found[os.path.relpath(file, root) if file.is_relative_to(root) else str(file)] = read
    return found


def _shared_files(root: Path) -> Iterator[Path]:
    yield from _files_of(root)
    for folder, folders, names in islice(os.walk(root / "modules"), _FOLDERS):
        if "HEAD" in names:
            folders[:] = [name for name in folders if name == "modules"]
            yield from _files_of(Path(folder))
    with suppress(OSError):
        yield from (entry / "config.worktree" for entry in sorted((root / "worktrees").iterdir()))


def _files_of(git_dir: Path) -> Iterator[Path]:
    """Yield what one git folder may have of such files."""
    yield from (git_dir / name for name in ("config", "config.worktree", "hooks", "objects/info/alternates"))
    for name in ("info", "hooks"):
        for folder, _, files in os.walk(git_dir / name):
            yield from (Path(folder, file) for file in sorted(files) if _counts(name, file))


def _counts(folder: str, file: str) -> bool:
    return not file.endswith(".sample") if folder == "hooks" else file != "refs"  # `git update-server-info` writes that


def _read(file: Path, limit: int, hashed: int) -> File | None:
    try:
        found = file.lstat()
        link = os.readlink(file) if file.is_symlink() else None  # noqa: PTH115 (pathlib would normalise it)
    except OSError:
        return None
    if file.is_dir() and link is None:
        return None
    size, content, digest = found.st_size, None, None
    with suppress(OSError):
        if opened := open_regular(file):
            with opened:
                size = os.fstat(opened.fileno()).st_size
                content = opened.read(limit)
                digest = _hash(opened, content, hashed)
    return File(found.st_mode & 0o777, link, size, content, digest)


def _hash(file: BinaryIO, begins: bytes, limit: int) -> str | None:
    """Return the digest of a file of which a part was read, or `None` where it is longer than `limit`."""
    made, size = hashlib.sha256(begins), len(begins)
    while size <= limit:
        if not (chunk := file.read(_CHUNK)):
            return made.hexdigest()
        made.update(chunk)
        size += len(chunk)
    return None


# -- comparing two


async def compare(before: Snapshot, after: Snapshot) -> list[ConfigChange]:
    """Return what changed between two snapshots, sorted by file."""
    changes: list[ConfigChange] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        is_worktrees = name.startswith("worktrees/")  # worktrees come and go with their agents
        if _is_same(old, new) or (is_worktrees and not (name in before and name in after)):
            continue
        entries = await _compare_entries(name, old, new) if _is_configuration(name) else None
        changes += [ConfigChange(name, _how(old, new))] if entries is None else entries
    return changes


def _is_same(old: File | None, new: File | None) -> bool:
    if old is None or new is None:
        return old is new
    is_executable = bool(old.mode & 0o111) == bool(new.mode & 0o111)
    if not is_executable or old.link != new.link:
        return False
    if old.digest and new.digest:
        return old.digest == new.digest
    return (old.size, old.content) == (new.size, new.content)


def _is_configuration(name: str) -> bool:
    return name.rpartition("/")[2] in ("config", "config.worktree", ".gitconfig") and "hooks/" not in name


def _how(old: File | None, new: File | None) -> str:
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


async def _compare_entries(file: str, old: File | None, new: File | None) -> list[ConfigChange] | None:
    """Return the entries of a configuration that changed, or `None` where only the file as a whole can be told."""
    before, after = await _entries(old), await _entries(new)
    if before is None or after is None or (old and new and old.link != new.link):
        return None
    gone, come = _by_key(before - after), _by_key(after - before)
    return [
        ConfigChange(file, _tell(key, gone.get(key, []), come.get(key, [])), key)
        for key in dict.fromkeys((*gone, *come))
        if not _is_usual(file, key, gone.get(key, []), come.get(key, []))
    ]


async def _entries(file: File | None) -> "Counter[tuple[str, str]] | None":
    """Return the keys and values of a configuration, or `None` where git can't read them."""
    if file is None:
        return Counter()
    if file.content is None or len(file.content) < file.size:
        return None
    code, out, _ = await git.run("/", "config", "--file", "-", "--no-includes", "--list", "-z", stdin=file.content)
    if code:
        return None
    entries = (entry.partition("\n") for entry in os.fsdecode(out).split("\0") if entry)
    return Counter((key, value) for key, _, value in entries)


def _by_key(entries: "Counter[tuple[str, str]]") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in entries.elements():
        found.setdefault(key, []).append(value)
    return found


def _is_usual(file: str, key: str, old: Sequence[str], new: Sequence[str]) -> bool:
    """Whether git, or an honest program, makes such a change as a matter of course."""
    if file.startswith("worktrees/") and _SPARSE.fullmatch(key):
        return True
    if branch := _BRANCH.fullmatch(key):
        is_agents = branch["name"].startswith("forkjoin/")
        is_address = key.endswith(".remote") and any(":" in value or "/" in value for value in new)
        return (is_agents or not (old and new)) and not is_address
    return not old and bool(_USUAL.fullmatch(key))


def _tell(key: str, old: Sequence[str], new: Sequence[str]) -> str:
    name = _LOGIN.sub("…@", key)
    if not new:
        return f"{name} removed (was: {_values(key, old)})"
    why = " (as git sparse-checkout sets it)" if key == "extensions.worktreeconfig" else ""
    return f"{name} = {_values(key, new)}{why}" + (f" (was: {_values(key, old)})" if old else "")


def _values(key: str, values: Sequence[str]) -> str:
    """Return values as they can be shown, without a login in an address."""
    if _SECRET.search(key):
        return "(hidden)"
    shown = ", ".join(printable(_LOGIN.sub("…@", value)) for value in values)
    return shown if len(shown) <= _VALUE else f"{shown[:_VALUE]}…"


# -- keeping one, and putting it back


def accepted_file(home: Home, common_dir: str) -> Path:
    """Return the file that holds what the person accepts in this repository."""
    return home.shared_config / digest(common_dir) / "accepted.json"


def read_accepted(file: Path) -> Snapshot | None:
    """Return the snapshot that the person accepted, or `None` if unknown. Blocks."""
    try:
        return from_json(json.loads(read_regular(file) or b""))
    except DAMAGED_SNAPSHOT_ERRORS:
        return None


def find_damage(file: Path) -> str | None:
    """Return words for a record of what the person accepted that is there, but can't be read. Blocks."""
    if not os.path.lexists(file) or read_accepted(file) is not None:
        return None
    return (
        f"{file} is damaged. So it is not known what changed in the shared git configuration and hooks since a person "
        "accepted them; what changes while an agent runs is still told. To look, and accept what is there now: "
        "forkjoin trust"
    )


def accept(file: Path, snapshot: Snapshot) -> None:
    """Record a snapshot as what the person accepts. Blocks."""
    write_json(file, to_json(snapshot))


def accept_as_found(file: Path, common_dir: str) -> None:
    """Accept what a repository has when forkjoin first sees it, before an agent runs there. Blocks."""
    if not file.exists():
        accept(file, take_snapshot(common_dir))


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as `from_json` takes it."""
    return {
        name: file and [file.mode, file.link, file.size, _encode(file.content), file.digest]
        for name, file in snapshot.items()
    }


def from_json(said: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot that a JSON text holds."""
    return {name: _file_from(*file) if file else None for name, file in said.items()}


def _file_from(mode: int, link: str | None, size: int, content: str | None, digest: str | None = None) -> File:
    return File(mode, link, size, None if content is None else base64.b64decode(content), digest)


def _encode(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def write_json(file: Path, value: object) -> None:
    """Replace a file that is the user's alone, and see that it is on disk. Blocks."""
    for folder in (file.parent.parent, file.parent):  # with `parents`, the mode would count for the last alone
        folder.mkdir(mode=0o700, exist_ok=True)
    write_atomically(file, json.dumps(value).encode(), durable=True)


def write_copies(folder: Path, snapshot: Snapshot, names: Sequence[str]) -> None:
    """Write what a snapshot has of these files below a folder, none of them executable. Blocks."""
    for name in names:
        found = snapshot.get(name)
        if found and found.content is not None:
            file = folder / name
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(file, found.content, durable=True)


def restore_files(common_dir: str, snapshot: Snapshot, names: Sequence[str]) -> list[str]:
    """Give these files the content that a snapshot has of them. Blocks.

    Returns: those that could not be put back, since the snapshot does not hold all of their content.
    """
    left: list[str] = []
    for name in sorted(names):  # a link in place of a folder goes before what is behind it is written
        file, old = Path(common_dir, name), snapshot.get(name)
        if old and old.link is None and (old.content is None or len(old.content) < old.size):
            left.append(name)
            continue
        if file.is_dir() and not file.is_symlink():
            left.append(name)
        elif old is None:
            file.unlink(missing_ok=True)
        elif old.link is not None and file.is_symlink() and os.readlink(file) == old.link:  # noqa: PTH115
            left.append(name)  # the change is in what it leads to
        elif old.link is not None:
            file.unlink(missing_ok=True)
            file.symlink_to(old.link)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, old.content or b"", mode=old.mode, durable=True)
    return left
