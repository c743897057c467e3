"""Where an agent's work is found again: reachable in the repository or a submodule's, or in a worktree that stands."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from adversary.ground import PLAIN, Ground

#: Where folders are kept that were discarded.
_TARS = "refs/forkjoin/kept/nested"


class Reach:
    """All files that are reachable, or stand in a worktree."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        stashes = ground.ask("stash", "list", "--format=%H", check=False).split()
        listing = ground.ask("rev-list", "--objects", "--all", *stashes, "--missing=allow-any", check=False)
        self._reachable = _first_words(listing)
        for folder in ground.common.glob("worktrees/*"):  # which has refs and reflogs of its own
            own = ("rev-list", "--objects", "--all", "--reflog", "--missing=allow-any")
            self._reachable |= _first_words(
                ground.run(folder, "--git-dir", str(folder), *own, check=False, extra=PLAIN)
            )
        for folder in _git_folders(ground.common, "modules"):
            for tips in ("--all", "HEAD"):  # whose branch may not have begun
                self._reachable |= _first_words(self._of(folder, "rev-list", "--objects", tips))
        standing = [ground.home / "worktrees", *ground.common.glob("worktrees/*-else"), *self._unpack()]
        self._standing: set[bytes] = set()
        for top in standing:
            self._look_at(top)
        self._there = self._reachable | self._standing_objects(standing)

    def _unpack(self) -> Iterator[Path]:
        """Unpack what was kept of folders."""
        for ref in self._ground.ask("for-each-ref", "--format=%(refname)", f"{_TARS}/").splitlines():
            for line in self._ground.ask("ls-tree", "-r", ref).splitlines():
                data = os.fsencode(self._ground.ask("cat-file", "blob", line.split()[2]))
                folder = self._ground.folder / "unpacked" / ref.rpartition("/")[2]
                with suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(data + b"\n")) as tar:
                    tar.extractall(folder, filter="tar")
                yield folder

    def _look_at(self, top: Path) -> None:
        for folder, _, names in os.walk(top):
            for name in names:
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink() and file.stat().st_size < 100:
                    self._standing.add(file.read_bytes())

    def _standing_objects(self, tops: list[Path]) -> set[str]:
        found = set[str]()
        for top in (*tops, *self._ground.common.glob("worktrees/*/modules")):
            for folder in _git_folders(top):
                found |= _first_words(self._of(folder, "cat-file", "--batch-all-objects", "--batch-check"))
        return found

    def _of(self, folder: Path, *arguments: str) -> str:
        return self._ground.run(folder, "--git-dir=.", "-c", "core.worktree=", *arguments, check=False)

    def has(self, text: bytes) -> bool:
        """Whether a file with this text is kept."""
        encoded = text.decode().encode("utf-16-le")
        return not self._standing.isdisjoint((text, encoded)) or any(one in self._there for one in self._ids(text))

    def has_object(self, text: bytes) -> bool:
        """Whether git has it at least, reachable or not."""
        return any(self._ground.ask("cat-file", "-t", one, check=False) == "blob" for one in self._ids(text))

    def _ids(self, text: bytes) -> Iterator[str]:
        """Yield a file's object id, as repositories of either format have it."""
        for form in ("sha1", "sha256"):
            yield hashlib.new(form, b"blob %d\0" % len(text) + text).hexdigest()


def _git_folders(top: Path, *below: str) -> Iterator[Path]:
    """Every repository's folder below this one."""
    for folder, folders, names in os.walk(top.joinpath(*below)):
        if "HEAD" in names and "objects" in folders:
            yield Path(folder)


def _first_words(listing: str) -> set[str]:
    return {line.split(" ")[0] for line in listing.splitlines()}
