"""A search for agents' work in the repository, in submodules' repositories, in worktrees and in kept archives."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from adversary.sandbox import PLAIN, Sandbox

#: The prefix of the refs that keep discarded nested folders as tar archives.
_TARS = "refs/forkjoin/kept/nested"


class ReachableFiles:
    """All files that are reachable from refs and reflogs, or exist in a worktree or an archive."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        stashes = sandbox.ask("stash", "list", "--format=%H", check=False).split()
        listing = sandbox.ask("rev-list", "--objects", "--all", *stashes, "--missing=allow-any", check=False)
        self._reachable = _first_words(listing)
        for folder in sandbox.common.glob("worktrees/*"):  # a worktree has refs and reflogs of its own
            own = ("rev-list", "--objects", "--all", "--reflog", "--missing=allow-any")
            self._reachable |= _first_words(
                sandbox.run(folder, "--git-dir", str(folder), *own, check=False, extra=PLAIN)
            )
        for folder in _git_folders(sandbox.common, "modules"):
            for tips in ("--all", "HEAD"):  # separately, because the call for HEAD fails if HEAD has no commit
                self._reachable |= _first_words(self._of(folder, "rev-list", "--objects", tips))
        folders = [sandbox.home / "worktrees", *sandbox.common.glob("worktrees/*-else"), *self._unpack()]
        self._contents: set[bytes] = set()
        for top in folders:
            self._look_at(top)
        self._objects = self._reachable | self._read_objects(folders)

    def _unpack(self) -> Iterator[Path]:
        """Unpack the archives of discarded folders, and yield the folders that result."""
        for ref in self._sandbox.ask("for-each-ref", "--format=%(refname)", f"{_TARS}/").splitlines():
            for line in self._sandbox.ask("ls-tree", "-r", ref).splitlines():
                data = os.fsencode(self._sandbox.ask("cat-file", "blob", line.split()[2]))
                folder = self._sandbox.folder / "unpacked" / ref.rpartition("/")[2]
                with suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(data + b"\n")) as tar:
                    tar.extractall(folder, filter="tar")
                yield folder

    def _look_at(self, top: Path) -> None:
        for folder, _, names in os.walk(top):
            for name in names:
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink() and file.stat().st_size < 100:
                    self._contents.add(file.read_bytes())

    def _read_objects(self, tops: list[Path]) -> set[str]:
        found = set[str]()
        for top in (*tops, *self._sandbox.common.glob("worktrees/*/modules")):
            for folder in _git_folders(top):
                found |= _first_words(self._of(folder, "cat-file", "--batch-all-objects", "--batch-check"))
        return found

    def _of(self, folder: Path, *arguments: str) -> str:
        return self._sandbox.run(folder, "--git-dir=.", "-c", "core.worktree=", *arguments, check=False)

    def has(self, text: bytes) -> bool:
        """Return whether a file with this content is reachable or exists.

        Its encoding may be UTF-8 or UTF-16.
        """
        encoded = text.decode().encode("utf-16-le")
        return not self._contents.isdisjoint((text, encoded)) or any(one in self._objects for one in self._ids(text))

    def has_object(self, text: bytes) -> bool:
        """Return whether the repository has an object with this content, reachable or not."""
        return any(self._sandbox.ask("cat-file", "-t", one, check=False) == "blob" for one in self._ids(text))

    def _ids(self, text: bytes) -> Iterator[str]:
        """Yield the SHA-1 and SHA-256 object ids of a file with this content."""
        for form in ("sha1", "sha256"):
            yield hashlib.new(form, b"blob %d\0" % len(text) + text).hexdigest()


def _git_folders(top: Path, *below: str) -> Iterator[Path]:
    """Yield all git folders below a folder."""
    for folder, folders, names in os.walk(top.joinpath(*below)):
        if "HEAD" in names and "objects" in folders:
            yield Path(folder)


def _first_words(listing: str) -> set[str]:
    return {line.split(" ")[0] for line in listing.splitlines()}
