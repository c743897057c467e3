"""Changes between two snapshots of shared git configuration and hooks.

Changes of a configuration file are listed by entry. Entries that git and well-behaved programs set routinely, such as
the upstream of a new branch, don't count as changes.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from forkjoin.git import git
from forkjoin.git.config_snapshot import FileState, Snapshot
from forkjoin.git.file_names import printable

#: The number of characters of a value that a message shows.
_VALUE_LIMIT = 80

#: Entries that are set for a branch when it is created, checked out or pushed.
_BRANCH_ENTRY = re.compile(
    r"branch\.(?P<name>.*)\.(?:remote|merge|rebase|description|vscode-merge-base|gh-merge-base)", re.DOTALL
)
#: Entries that git, git-lfs and gh set routinely.
_ROUTINE_ENTRY = re.compile(
    r"submodule\..*\.(?:url|active)|lfs\.(?:repositoryformatversion|.*\.(?:access|locksverify))|remote\..*\.gh-resolved",
    re.DOTALL,
)
#: Entries that `git sparse-checkout` sets for one worktree.
_SPARSE_ENTRY = re.compile(r"core\.sparsecheckout(?:cone)?|index\.sparse")
#: Keys whose values may be secret.
_SECRET_KEY = re.compile(r"extraheader|cookie|token|secret|password|passwd", re.IGNORECASE)
#: User name and password in a URL.
_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """A change of a file, or of one entry of a configuration file."""

    file: str  #: the file's name in the snapshots
    description: str
    key: str = ""  #: the key of the changed entry; empty for a change of the whole file

    @property
    def is_users(self) -> bool:
        """Whether the file is the user's own configuration, for all repositories."""
        return self.file.startswith("/")

    def __str__(self) -> str:
        return f"{printable(self.file)}: {self.description}"


async def compare_snapshots(before: Snapshot, after: Snapshot) -> list[ConfigChange]:
    """Return the changes between two snapshots, sorted by file."""
    changes: list[ConfigChange] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if _is_same_state(old, new):
            continue
        if name.startswith("worktrees/") and not (name in before and name in after):
            continue  # configuration that came or went with its worktree does not affect the other worktrees
        entries = await _compare_entries(name, old, new) if _is_configuration(name) else None
        whole = "added" if old is None else "removed" if new is None else "changed"
        changes += [ConfigChange(name, whole)] if entries is None else entries
    return changes


def _is_same_state(old: FileState | None, new: FileState | None) -> bool:
    if old is None or new is None:
        return old is new
    is_same_mode = bool(old.mode & 0o111) == bool(new.mode & 0o111)
    if not is_same_mode or old.link != new.link:
        return False
    if old.digest and new.digest:
        return old.digest == new.digest
    return (old.size, old.content) == (new.size, new.content)


def _is_configuration(name: str) -> bool:
    return name.rpartition("/")[2] in ("config", "config.worktree", ".gitconfig") and "hooks/" not in name


async def _compare_entries(file: str, old: FileState | None, new: FileState | None) -> list[ConfigChange] | None:
    """Return the entries that changed, or `None` if they can't be compared.

    They can't be compared if a file is invalid or cut in its snapshot, or if the target of a symlink changed.
    """
    before, after = await _parse_entries(old), await _parse_entries(new)
    if before is None or after is None or (old and new and old.link != new.link):
        return None
    removed, added = _values_by_key(before - after), _values_by_key(after - before)
    return [
        ConfigChange(file, _describe_entry(key, removed.get(key, []), added.get(key, [])), key)
        for key in dict.fromkeys((*removed, *added))
        if not _is_routine(file, key, removed.get(key, []), added.get(key, []))
    ]


async def _parse_entries(file: FileState | None) -> "Counter[tuple[str, str]] | None":
    """Return the number of each (key, value) in a configuration file.

    Return `None` if the snapshot doesn't have the whole content, or git can't parse the content.
    """
    if file is None:
        return Counter()
    if file.content is None or len(file.content) < file.size:
        return None
    code, out, _ = await git.run("/", "config", "--file", "-", "--no-includes", "--list", "-z", stdin=file.content)
    if code:
        return None
    entries = (entry.partition("\n") for entry in os.fsdecode(out).split("\0") if entry)
    return Counter((key, value) for key, _, value in entries)


def _values_by_key(entries: "Counter[tuple[str, str]]") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in entries.elements():
        found.setdefault(key, []).append(value)
    return found


def _is_routine(file: str, key: str, old: Sequence[str], new: Sequence[str]) -> bool:
    """Return whether git or a well-behaved program makes such a change routinely.

    Args:
        file: The configuration file.
        key: The key of the changed entry.
        old: The values that were removed.
        new: The values that were added.
    """
    if file.startswith("worktrees/") and _SPARSE_ENTRY.fullmatch(key):
        return True
    if branch := _BRANCH_ENTRY.fullmatch(key):
        is_agents = branch["name"].startswith("forkjoin/")
        is_address = key.endswith(".remote") and any(":" in value or "/" in value for value in new)
        return (is_agents or not (old and new)) and not is_address
    return not old and bool(_ROUTINE_ENTRY.fullmatch(key))


def _describe_entry(key: str, old: Sequence[str], new: Sequence[str]) -> str:
    name = _LOGIN.sub("…@", key)
    if not new:
        return f"{name} removed (was: {_show_values(key, old)})"
    reason = " (as git sparse-checkout sets it)" if key == "extensions.worktreeconfig" else ""
    return f"{name} = {_show_values(key, new)}{reason}" + (f" (was: {_show_values(key, old)})" if old else "")


def _show_values(key: str, values: Sequence[str]) -> str:
    """Return the values of an entry for a message, with secrets hidden."""
    if _SECRET_KEY.search(key):
        return "(hidden)"
    shown = ", ".join(printable(_LOGIN.sub("…@", value)) for value in values)
    return shown if len(shown) <= _VALUE_LIMIT else f"{shown[:_VALUE_LIMIT]}…"
