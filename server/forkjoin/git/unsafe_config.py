"""What in a repository's own configuration can run a command or hide files, and how git is kept from obeying it.

Agents share that configuration and may write to it. What has a fixed name is overridden in every call (see git.py); so
what is left are filters, merge drivers and whatever a partial clone fetches missing objects by. Of these, the person's
own are run: what is in the configuration of the user or the system, what was there when the project was first recorded,
before an agent ran in it, and what `forkjoin trust` was said to. In place of any other git is told the person's own of
the same name, else none: no filter, git's text merge, no fetch. Settings by which git sees no file, or no change, are
the person's own in the same way.
"""

import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.core.error import CallerError, GitHungError
from forkjoin.core.trust_records import Trust, Trusted, digest
from forkjoin.git.git_folder import Location

#: What tells all of a configuration, with the scope of each entry.
LISTING = ("config", "--list", "-z", "--show-scope")

_FILTER = re.compile(r"filter\.(.*)\.(?:clean|smudge|process)", re.DOTALL)
_MERGE = re.compile(r"merge\..*\.driver", re.DOTALL)
_HOOK = re.compile(r"(hook\..*)\.command", re.DOTALL)  # git 2.54; core.hooksPath does not rule these
_FETCH = re.compile(
    r"core\.(?:sshcommand|gitproxy|askpass)|credential\.(?:.*\.)?helper|extensions\.partialclone"
    r"|remote\..*\.(?:promisor|uploadpack|vcs)|protocol\.(?:.*\.)?allow|url\..*\.insteadof",
    re.DOTALL,
)
#: Settings by which git sees less than is there: what it is told instead, and also takes for granted.
_SIGHT = {"core.filemode": "true", "core.ignorecase": "false", "core.symlinks": "true"}
_IGNORE = "core.excludesfile"
_INCLUDE = re.compile(r"include(?:if\..*)?\.path", re.DOTALL)

#: What else is read of a listing.
_READ = frozenset({"core.bare", "core.sharedrepository"})

#: git's own text merge, as a driver: an empty command would pass for a merge without a conflict.
_TEXT_MERGE = "git merge-file -q --marker-size=%L %A %O %B || exit 1"
#: How long a configuration over which git hung is not read again.
_REST_S = 30.0
#: Bytes of overrides that an environment has room for.
_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a configuration that can run a command or hide files."""

    scope: str
    key: str
    value: str

    @property
    def is_repositorys(self) -> bool:
        """Whether it stands where agents share it, not in the user's or the system's own, and is no default."""
        return self.scope not in ("global", "system", "command") and self.value.lower() != _SIGHT.get(self.key)

    @property
    def digest(self) -> str:
        return digest(self.key, self.value)


def read_listing(listing: str) -> tuple[list[Entry], bool]:
    """The entries that are not obeyed from anybody, in the order in which they count; whether files are included."""
    fields = listing.split("\0")
    told = [(scope, *said.partition("\n")) for scope, said in zip(fields[::2], fields[1::2], strict=False)]
    entries = [Entry(scope, key, value) for scope, key, _, value in told]
    includes = any(entry.is_repositorys and _INCLUDE.fullmatch(entry.key) for entry in entries)
    return [entry for entry in entries if _counts(entry.key)], includes


def _counts(key: str) -> bool:
    return key in _SIGHT or key == _IGNORE or any(kind.fullmatch(key) for kind in (_FILTER, _MERGE, _HOOK, _FETCH))


def override(entries: Sequence[Entry], trusted: Trusted) -> tuple[dict[str, str], list[str]]:
    """The environment that keeps git from running what is not the person's own, and the keys of that."""
    strange = dict.fromkeys(one for one in entries if not _is_own(one, trusted))
    own = {entry.key: entry.value for entry in entries if entry not in strange}
    keys = list(dict.fromkeys(entry.key for entry in strange))
    filters = {named[1] for named in map(_FILTER.fullmatch, own) if named}
    told: dict[str, str] = {}
    for key in keys:
        told |= _instead(key, own, filters)
    if sum(len(key) + len(value) for key, value in told.items()) > _LIMIT:
        raise CallerError("The repository's git configuration names more commands than can be overridden; clear it.")
    environment = {f"GIT_CONFIG_KEY_{n}": key for n, key in enumerate(told)}
    environment |= {f"GIT_CONFIG_VALUE_{n}": value for n, value in enumerate(told.values())}
    if any(_FETCH.fullmatch(key) for key in keys):
        environment["GIT_NO_LAZY_FETCH"] = "1"
    return environment | ({"GIT_CONFIG_COUNT": str(len(told))} if told else {}), keys


def _is_own(entry: Entry, trusted: Trusted) -> bool:
    """Return whether an entry is the person's own."""
    return not entry.is_repositorys or entry.digest in trusted.commands


def _instead(key: str, own: Mapping[str, str], filters: Set[str]) -> dict[str, str]:
    """What git is told in place of an entry that is nobody's."""
    if named := _FILTER.fullmatch(key):
        return {key: own.get(key, "")} | ({} if named[1] in filters else {f"filter.{named[1]}.required": "false"})
    if _MERGE.fullmatch(key):
        return {key: own.get(key, _TEXT_MERGE)}
    if hook := _HOOK.fullmatch(key):
        return {f"{hook[1]}.enabled": "false"}
    if key in _SIGHT or key == _IGNORE:
        return {key: own.get(key, _SIGHT.get(key, str(users_folder() / "ignore")))}
    return {}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a configuration was found to be."""

    stamp: tuple[object, ...]  #: of the files that it was in then
    environment: dict[str, str]  #: what keeps git from running what is nobody's
    strange: list[str]  #: the keys of that
    own: Mapping[str, str]  #: what else of the repository's own configuration counts for us
    ignore: Path  #: the person's own file of ignore rules, for all repositories


class Guard:
    """Knows what is not to be run where; looks again whenever a file of the configuration has changed."""

    def __init__(self) -> None:
        self.trust: Trust | None = None
        self._seen: dict[Path, Seen] = {}
        self._hung: dict[Path, tuple[float, object, GitHungError]] = {}

    def use(self, trust: Trust | None) -> None:
        """Let a home's records say, from now on, what is trusted; none: nothing is."""
        self.trust, self._seen = trust, {}

    def forget(self, folder: Path) -> None:
        """Drop what is known of a git folder that is gone."""
        self._seen.pop(folder, None)

    async def look(self, location: Location, ask: Callable[[Path], Awaitable[str]]) -> Seen:
        """What counts for a call of git there; `ask` tells a git folder's listing."""
        common_dir = location.common_dir
        folder, stamp = await to_thread.run_sync(self._find, location)
        seen = self._seen.get(folder)
        if seen is None or seen.stamp != stamp:
            listing = await self._ask(folder, stamp, ask)
            entries, includes = read_listing(listing)
            if includes and folder != location.git_dir:  # what is included may depend on the git folder, and on HEAD
                entries, _ = read_listing(listing := await self._ask(location.git_dir, stamp, ask))
            trusted = await to_thread.run_sync(self.trust.read, common_dir) if self.trust else None
            environment, strange = override(entries, trusted or Trusted())
            # Which files are included we do not follow: such a configuration is asked for anew each time.
            ignore = _find_ignore(entries, trusted or Trusted())
            seen = Seen((*stamp, *(["once"] if includes else [])), environment, strange, _own(listing), ignore)
            self._seen[folder] = seen
        return seen

    async def _ask(self, folder: Path, stamp: object, ask: Callable[[Path], Awaitable[str]]) -> str:
        """Ask for a listing, but for a while not again where git hung over the same: it may include a pipe."""
        since, before, error = self._hung.pop(folder, (0.0, None, None))
        if error and before == stamp and time.monotonic() - since < _REST_S:
            self._hung[folder] = since, before, error
            raise error.with_traceback(None)
        try:
            return await ask(folder)
        except GitHungError as error:
            self._hung[folder] = time.monotonic(), stamp, error
            raise

    def _find(self, location: Location) -> tuple[Path, tuple[object, ...]]:
        """The git folder that is asked for its configuration, and a stamp of the files of that."""
        folder, common = location.git_dir, location.common_dir
        asked = folder if (folder / "config.worktree").exists() else Path(common)
        files = [Path(common, "config"), asked / "config.worktree", *users_files()]
        if self.trust:
            files.append(self.trust.file(common))
        return asked, tuple(map(_stamp, files))


#: Looks at all our calls. Until it is told of a home's records, nothing of a repository's own is trusted.
GUARD = Guard()


def users_files() -> Iterator[Path]:
    """Yield the files that the user's own configuration may be in (git-config(1))."""
    yield Path(os.environ.get("HOME") or "~").expanduser() / ".gitconfig"
    yield users_folder() / "config"


def users_folder() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path(os.environ.get("HOME") or "~", ".config").expanduser(), "git")


def _find_ignore(entries: Sequence[Entry], trusted: Trusted) -> Path:
    own = [one.value for one in entries if one.key == _IGNORE and _is_own(one, trusted)]
    return Path(own[-1]).expanduser() if own else users_folder() / "ignore"


def _own(listing: str) -> dict[str, str]:
    fields = listing.split("\0")
    said = [(scope, *one.partition("\n")) for scope, one in zip(fields[::2], fields[1::2], strict=False)]
    return {key: value for scope, key, _, value in said if scope in ("local", "worktree") and key in _READ}


def _stamp(file: Path) -> object:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
