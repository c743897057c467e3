"""Records of trusted content: digests of git configuration and of forkjoin.toml files.

The last trusted content of forkjoin.toml is kept too, so that it can be shown and used after the file has changed. Each
repository has one record file in forkjoin's home. Standard library only.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.atomic_write import write_atomically


def digest(*parts: str | bytes) -> str:
    """Return the SHA-256 digest of the parts, each prefixed with its length.

    The digest is cut to 32 hexadecimal digits.
    """
    data = [os.fsencode(part) for part in parts]
    return hashlib.sha256(b"".join(b"%d:%s" % (len(part), part) for part in data)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Trusted:
    """The content that a person trusts in one repository."""

    commands: frozenset[str] = frozenset()  #: digests, each of a key and a value of git's configuration
    files: frozenset[str] = frozenset()  #: digests, each of the content of a forkjoin.toml
    last: str | None = None  #: content of the forkjoin.toml that was trusted last, if known
    keep: bool = False  #: whether `last` is used until a person trusts the current content
    damaged: bool = False  #: whether the record could not be read; nothing is trusted then


class Trust:
    """The trust records of all repositories, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, common_dir: str) -> Path:
        return self._folder / f"{digest(common_dir)}.json"

    def read(self, common_dir: str) -> Trusted | None:
        """Return the trust record of a repository, or `None` if it has none."""
        try:
            record = json.loads(self.file(common_dir).read_bytes())
            commands, files = (frozenset(map(str, record[kind])) for kind in ("commands", "files"))
            last = record.get("last")
            return Trusted(commands, files, None if last is None else str(last), record.get("keep") is True)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            return Trusted(damaged=True)

    def write(self, common_dir: str, trusted: Trusted) -> None:
        """Replace the trust record of a repository, durably."""
        repository = {"repository": os.fsencode(common_dir).decode(errors="replace")}
        digests = {"commands": sorted(trusted.commands), "files": sorted(trusted.files)}
        text = json.dumps(repository | digests | {"last": trusted.last, "keep": trusted.keep}, indent=1)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_atomically(self.file(common_dir), text.encode(), durable=True)
