"""Digests of what a person trusts: git configuration and forkjoin.toml contents.

Of the latter the last one is kept whole, so that it can be shown and used once the file says something else. There is a
file for each repository, in the home, replaced as a whole. Standard library only.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.atomic_write import write_atomically


def digest(*parts: str | bytes) -> str:
    """What exactly these are known by."""
    data = [os.fsencode(part) for part in parts]
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in data)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Trusted:
    """What is trusted in a repository."""

    commands: frozenset[str] = frozenset()  #: of a key and a value of git's configuration each
    files: frozenset[str] = frozenset()  #: of a forkjoin.toml's content each
    last: str | None = None  #: the content of the forkjoin.toml that was trusted last, where it is known
    keep: bool = False  #: whether that one is used while nobody has trusted what the file says now
    damaged: bool = False  #: whether the record could not be read, so that nothing is trusted


class Trust:
    """What is trusted, for every repository of a home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, common_dir: str) -> Path:
        return self._folder / f"{digest(common_dir)}.json"

    def read(self, common_dir: str) -> Trusted | None:
        """Return what is trusted in this repository, or None if that was never recorded."""
        try:
            said = json.loads(self.file(common_dir).read_bytes())
            commands, files = (frozenset(map(str, said[kind])) for kind in ("commands", "files"))
            last = said.get("last")
            return Trusted(commands, files, None if last is None else str(last), said.get("keep") is True)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return Trusted(damaged=True)

    def write(self, common_dir: str, trusted: Trusted) -> None:
        """Let this be what is trusted there; it is on disk when this returns."""
        said = {"repository": os.fsencode(common_dir).decode(errors="replace")}
        digests = {"commands": sorted(trusted.commands), "files": sorted(trusted.files)}
        text = json.dumps(said | digests | {"last": trusted.last, "keep": trusted.keep}, indent=1)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_atomically(self.file(common_dir), text.encode(), durable=True)
