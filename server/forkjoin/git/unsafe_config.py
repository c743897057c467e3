"""Entries of a git configuration that can run commands or hide files, and what overrides them.

Agents share the repository's configuration and can write to it. Keys with a fixed name are overridden in every call
(safe_options.py). The others remain: filters, merge drivers, hooks, and the commands by which a partial clone fetches
missing objects. Such an entry counts only if it is in the user's or the system's own configuration, or is trusted.
An entry is trusted if it existed when the project was first recorded, before any agent ran, or if the user trusted it
with `forkjoin trust`.

Any other entry is overridden by the trusted one with the same key, or by a harmless default: no filter, git's own text
merge, no fetch. Settings that make git overlook files or changes are handled in the same way.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.error import CallerError
from forkjoin.core.trust_records import Trusted, digest

_FILTER = re.compile(r"filter\.(.*)\.(?:clean|smudge|process)", re.DOTALL)
_MERGE_DRIVER = re.compile(r"merge\..*\.driver", re.DOTALL)
_HOOK = re.compile(r"(hook\..*)\.command", re.DOTALL)  # since git 2.54; core.hooksPath doesn't disable such hooks
_FETCH = re.compile(
    r"core\.(?:sshcommand|gitproxy|askpass)|credential\.(?:.*\.)?helper|extensions\.partialclone"
    r"|remote\..*\.(?:promisor|uploadpack|vcs)|protocol\.(?:.*\.)?allow|url\..*\.insteadof",
    re.DOTALL,
)
#: Settings that can make git overlook changes, each with the value that replaces an untrusted value.
_SAFE_VALUES = {"core.filemode": "true", "core.ignorecase": "false", "core.symlinks": "true"}
_IGNORE_FILE = "core.excludesfile"
_INCLUDE = re.compile(r"include(?:if\..*)?\.path", re.DOTALL)

#: git's text merge, as the command of a merge driver. With an empty command, every merge would count as clean.
_TEXT_MERGE = "git merge-file -q --marker-size=%L %A %O %B || exit 1"
#: The number of bytes of overrides that a call of git may have in its environment.
_OVERRIDES_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class ConfigEntry:
    """An entry of a git configuration."""

    scope: str  #: the origin of the entry as `git config --show-scope` prints it, for example "local"
    key: str
    value: str

    @property
    def is_unsafe(self) -> bool:
        """Whether an entry with this key can run a command or hide files."""
        patterns = (_FILTER, _MERGE_DRIVER, _HOOK, _FETCH)
        is_command = any(pattern.fullmatch(self.key) for pattern in patterns)
        return is_command or self.key in _SAFE_VALUES or self.key == _IGNORE_FILE

    @property
    def is_include(self) -> bool:
        """Whether the entry includes another file."""
        return bool(_INCLUDE.fullmatch(self.key))

    @property
    def is_from_repository(self) -> bool:
        """Whether the entry is in the repository's configuration, which agents can write."""
        return self.scope not in ("global", "system", "command")

    @property
    def needs_trust(self) -> bool:
        """Whether the entry is the repository's, unsafe, and not set to a harmless value."""
        is_harmless = self.value.lower() == _SAFE_VALUES.get(self.key)
        return self.is_unsafe and self.is_from_repository and not is_harmless

    @property
    def digest(self) -> str:
        """The digest by which trust in this entry is recorded."""
        return digest(self.key, self.value)


def parse_listing(listing: str) -> list[ConfigEntry]:
    """Parse the output of `git config --list -z --show-scope`.

    Return the entries in git's order. For git, the last entry of a key counts.
    """
    fields = listing.split("\0")
    rows = [(scope, *entry.partition("\n")) for scope, entry in zip(fields[::2], fields[1::2], strict=False)]
    return [ConfigEntry(scope, key, value) for scope, key, _, value in rows]


def find_overrides(entries: Sequence[ConfigEntry], trusted: Trusted) -> tuple[dict[str, str], list[str]]:
    """Return variables that override untrusted entries, and these entries' keys.

    Raises:
        CallerError: The overrides are too large for an environment.
    """
    unsafe = [entry for entry in entries if entry.is_unsafe]
    allowed = {entry.key: entry.value for entry in unsafe if _is_allowed(entry, trusted)}
    keys = list(dict.fromkeys(entry.key for entry in unsafe if not _is_allowed(entry, trusted)))
    filters = {match[1] for match in map(_FILTER.fullmatch, allowed) if match}
    replacements: dict[str, str] = {}
    for key in keys:
        replacements |= _find_replacements(key, allowed, filters)
    if sum(len(key) + len(value) for key, value in replacements.items()) > _OVERRIDES_LIMIT:
        raise CallerError(
            "The repository's git configuration names more commands than forkjoin can override. Remove the filters, "
            "merge drivers and hooks that you don't need from it, then call again."
        )
    variables = {f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(replacements)}
    variables |= {f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(replacements.values())}
    if any(_FETCH.fullmatch(key) for key in keys):
        variables["GIT_NO_LAZY_FETCH"] = "1"
    return variables | ({"GIT_CONFIG_COUNT": str(len(replacements))} if replacements else {}), keys


def find_ignore_file(entries: Sequence[ConfigEntry], trusted: Trusted) -> Path:
    """Return the user's ignore file for all repositories.

    It is the last allowed core.excludesFile, or git's default.
    """
    allowed = [entry.value for entry in entries if entry.key == _IGNORE_FILE and _is_allowed(entry, trusted)]
    return Path(allowed[-1]).expanduser() if allowed else _default_ignore_file()


def _is_allowed(entry: ConfigEntry, trusted: Trusted) -> bool:
    return not entry.needs_trust or entry.digest in trusted.commands


def _find_replacements(key: str, allowed: Mapping[str, str], filters: Set[str]) -> dict[str, str]:
    """Return the entries, by key, that override an untrusted entry.

    Args:
        key: The key of the untrusted entry.
        allowed: The values of the trusted and of the user's own unsafe entries, by key.
        filters: The names of the filters that have a command among `allowed`.
    """
    if match := _FILTER.fullmatch(key):
        not_required = {} if match[1] in filters else {f"filter.{match[1]}.required": "false"}
        return {key: allowed.get(key, "")} | not_required
    if _MERGE_DRIVER.fullmatch(key):
        return {key: allowed.get(key, _TEXT_MERGE)}
    if match := _HOOK.fullmatch(key):
        return {f"{match[1]}.enabled": "false"}
    if key in _SAFE_VALUES:
        return {key: allowed.get(key, _SAFE_VALUES[key])}
    if key == _IGNORE_FILE:
        return {key: allowed.get(key, str(_default_ignore_file()))}
    return {}


def users_config_files() -> Iterator[Path]:
    """Yield the files that may hold the user's own configuration (git-config(1))."""
    yield Path(os.environ.get("HOME") or "~").expanduser() / ".gitconfig"
    yield _users_config_folder() / "config"


def _default_ignore_file() -> Path:
    return _users_config_folder() / "ignore"


def _users_config_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME") or "~", ".config").expanduser(), "git")
