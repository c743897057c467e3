"""The git configuration that applies to a call of git, and what overrides its untrusted entries.

`GIT_CONFIG` reads a configuration through git once, and again as soon as one of its files has changed.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitHungError, GitRefusedError
from forkjoin.core.trust_records import Trust, Trusted
from forkjoin.git.file_names import printable_list
from forkjoin.git.git_folder import Location
from forkjoin.git.git_process import read_limited
from forkjoin.git.unsafe_config import (
    ConfigEntry,
    find_ignore_file,
    find_overrides,
    parse_listing,
    users_config_files,
)

_LIST = ("config", "--list", "-z", "--show-scope")
#: The number of bytes from which a configuration counts as too large. Such a configuration is an attack or a mistake.
_LISTING_LIMIT = 1024 * 1024
#: Seconds for which an unchanged configuration isn't read again after git hung on it.
_HANG_REST_S = 30.0


@dataclass(frozen=True, slots=True)
class GitConfig:
    """The configuration that applies to calls of git in one git folder."""

    stamp: tuple[object, ...]  #: a value that changes as soon as one of the configuration's files changes
    entries: Sequence[ConfigEntry]  #: in git's order: the last entry of a key counts
    overrides: dict[str, str]  #: environment variables that keep git from using untrusted entries
    untrusted_keys: list[str]
    ignore_file: Path  #: the user's ignore file for all repositories

    def find_own_value(self, key: str) -> str | None:
        """Return the value of a key in the repository's own configuration, or `None`."""
        values = [entry.value for entry in self.entries if entry.key == key and entry.scope in ("local", "worktree")]
        return values[-1] if values else None


class GitConfigReader:
    """A cache of git configurations, each valid until one of its files changes."""

    def __init__(self) -> None:
        self.trust: Trust | None = None
        self._configs: dict[Path, GitConfig] = {}
        self._hangs: dict[Path, tuple[float, object, GitHungError]] = {}

    def use_trust(self, trust: Trust | None) -> None:
        """Use these trust records from now on.

        With `None`, no entry of a repository's own configuration is trusted.
        """
        self.trust, self._configs = trust, {}

    def forget(self, folder: Path) -> None:
        """Drop the cached configuration of a git folder that was removed."""
        self._configs.pop(folder, None)

    async def read(self, location: Location) -> GitConfig:
        """Return the configuration that applies to a call of git.

        Raises:
            GitError: git can't read the configuration.
            CallerError: The configuration is too large.
        """
        folder, stamp = await to_thread.run_sync(self._stamp, location)
        cached = self._configs.get(folder)
        if cached and cached.stamp == stamp:
            return cached
        entries = await self._list(folder, stamp)
        has_includes = any(entry.is_include and entry.is_from_repository for entry in entries)
        # Which files `includeIf` includes depends on the call's own git folder and its HEAD.
        if has_includes and folder != location.git_dir:
            entries = await self._list(location.git_dir, stamp)
        recorded = await to_thread.run_sync(self.trust.read, location.common_dir) if self.trust else None
        trusted = recorded or Trusted()
        config = GitConfig(stamp, entries, *find_overrides(entries, trusted), find_ignore_file(entries, trusted))
        if not has_includes:  # changes of included files would not change the stamp
            self._configs[folder] = config
        return config

    async def _list(self, folder: Path, stamp: object) -> list[ConfigEntry]:
        """Return the entries of the configuration that applies in a git folder.

        If git hung on the same files less than half a minute ago, raise the same error again.
        """
        since, hung_stamp, error = self._hangs.pop(folder, (0.0, None, None))
        if error and hung_stamp == stamp and time.monotonic() - since < _HANG_REST_S:
            self._hangs[folder] = since, hung_stamp, error
            raise error.with_traceback(None)
        try:
            return await _list_entries(folder)
        except GitHungError as error:  # for instance because an included file is a named pipe
            self._hangs[folder] = time.monotonic(), stamp, error
            raise

    def _stamp(self, location: Location) -> tuple[Path, tuple[object, ...]]:
        """Return the git folder whose configuration applies, and its stamp.

        The stamp changes as soon as one of the configuration's files changes.
        """
        common_dir = Path(location.common_dir)
        folder = location.git_dir if (location.git_dir / "config.worktree").exists() else common_dir
        files = [common_dir / "config", folder / "config.worktree", *users_config_files()]
        if self.trust:
            files.append(self.trust.file(location.common_dir))
        return folder, tuple(map(_file_stamp, files))


#: The configurations that all calls of git in this process use.
GIT_CONFIG = GitConfigReader()


async def list_entries_that_need_trust(common_dir: str) -> list[ConfigEntry]:
    """Return the entries that need trust, whether they are trusted or not."""
    return [entry for entry in await _list_entries(Path(common_dir)) if entry.needs_trust]


async def trust_existing_entries(common_dir: str) -> None:
    """Record a repository's present entries as trusted if it has no trust record.

    Call this when a project is new, before an agent runs there: all entries are then the user's own.
    """
    trust = GIT_CONFIG.trust
    if trust and await to_thread.run_sync(trust.read, common_dir) is None:
        entries = await list_entries_that_need_trust(common_dir)
        trusted = Trusted(frozenset(entry.digest for entry in entries))
        await to_thread.run_sync(trust.write, common_dir, trusted)


async def find_warnings(common_dir: str) -> list[str]:
    """Return a warning if entries of a repository's configuration are ignored.

    Return an empty list otherwise.

    The list is empty, too, if git refuses to read the configuration, because any call of git reports that.
    """
    try:
        keys = (await read_config(common_dir)).untrusted_keys
    except GitRefusedError:
        return []
    if not keys:
        return []
    ignored = f"forkjoin ignores these entries of the git configuration of {common_dir}: {printable_list(keys)}"
    reason = "They can run commands or hide files, and were added after the project was first used"
    return [f"{ignored}. {reason}. To look at them and trust them, run: forkjoin trust"]


async def is_marked_bare(common_dir: str) -> bool:
    """Return whether core.bare is true in the repository's own configuration."""
    value = (await read_config(common_dir)).find_own_value("core.bare")
    return value is not None and value.lower() in ("true", "yes", "on", "1", "")


async def read_shared_repository(common_dir: str) -> str:
    """Return the value of core.sharedRepository (git-config(1)).

    Without a value, return git's default "umask".
    """
    value = (await read_config(common_dir)).find_own_value("core.sharedrepository")
    return "umask" if value is None else value


async def find_users_ignore_file(common_dir: str, worktree: Path) -> Path:
    """Return the path of the user's ignore file for all repositories.

    A relative core.excludesFile is relative to the worktree.
    """
    return worktree / (await read_config(common_dir)).ignore_file


async def read_config(common_dir: str) -> GitConfig:
    """Return the configuration that applies to calls of git in `common_dir`.

    Raises:
        GitRefusedError: git would block on a file of the git folder.
        GitError: git can't read the configuration.
        CallerError: The configuration is too large.
    """
    location = Location(Path(common_dir), common_dir, Path(common_dir))
    await to_thread.run_sync(location.check_usable, _LIST)
    return await GIT_CONFIG.read(location)


async def _list_entries(folder: Path) -> list[ConfigEntry]:
    variables = {"GIT_DIR": str(folder), "GIT_WORK_TREE": str(folder)}
    listing = await read_limited(folder, _LIST, _LISTING_LIMIT, variables)
    if len(listing) == _LISTING_LIMIT:
        size = _LISTING_LIMIT // 1024
        raise CallerError(
            f"The git configuration of {folder} is larger than {size} KB. Remove entries, then call again."
        )
    return parse_listing(os.fsdecode(listing))


def _file_stamp(file: Path) -> object:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
