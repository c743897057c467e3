"""What in a repository's own configuration can run a command, and how git is kept from running it.

Agents share that configuration and may write to it. What has a fixed name is overridden in every call (see git.py); so
what is left are filters, merge drivers and whatever a partial clone fetches missing objects by. Of these, the person's
own are run: what is in the configuration of the user or the system, what was there when the project was first recorded,
before an agent ran in it, and what `forkjoin trust` was said to. In place of any other git is told the person's own of
the same name, else none: no filter, git's text merge, no fetch.
"""

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from forkjoin.branch.location import Location
from forkjoin.error import CallerError, GitHungError
from forkjoin.trust import Trust, Trusted, digest

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
    """An entry of a configuration that can run a command."""

    scope: str
    key: str
    value: str

    @property
    def is_repositorys(self) -> bool:
        """Whether it stands where agents share it: not in the user's or the system's own configuration."""
        return self.scope not in ("global", "system", "command")

    @property
    def digest(self) -> str:
        return digest(self.key, self.value)


def read_listing(listing: str) -> tuple[list[Entry], bool]:
    """The entries that can run a command, in the order in which they count, and whether other files are included."""
    fields = listing.split("\0")
    told = [(scope, *said.partition("\n")) for scope, said in zip(fields[::2], fields[1::2], strict=False)]
    entries = [Entry(scope, key, value) for scope, key, _, value in told]
    includes = any(entry.is_repositorys and _INCLUDE.fullmatch(entry.key) for entry in entries)
    kinds = (_FILTER, _MERGE, _HOOK, _FETCH)
    return [entry for entry in entries if any(kind.fullmatch(entry.key) for kind in kinds)], includes


def override(entries: Sequence[Entry], trusted: Trusted) -> tuple[dict[str, str], list[str]]:
    """The environment that keeps git from running what is not the person's own, and the keys of that."""
    strange = dict.fromkeys(one for one in entries if one.is_repositorys and one.digest not in trusted.commands)
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


def _instead(key: str, own: Mapping[str, str], filters: Set[str]) -> dict[str, str]:
    """What git is told in place of an entry that is nobody's."""
    if named := _FILTER.fullmatch(key):
        return {key: own.get(key, "")} | ({} if named[1] in filters else {f"filter.{named[1]}.required": "false"})
    if _MERGE.fullmatch(key):
        return {key: own.get(key, _TEXT_MERGE)}
    if hook := _HOOK.fullmatch(key):
        return {f"{hook[1]}.enabled": "false"}
    return {}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a configuration was found to be."""

    stamp: tuple[object, ...]  #: of the files that it was in then
    environment: dict[str, str]  #: what keeps git from running what is nobody's
    strange: list[str]  #: the keys of that
    own: Mapping[str, str]  #: what else of the repository's own configuration counts for us


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
            trusted = await to_thread.run_sync(self.trust.read, common_dir) if self.trust else None
            environment, strange = override(entries, trusted or Trusted())
            # Which files are included we do not follow: such a configuration is asked for anew each time.
            seen = Seen((*stamp, *(["once"] if includes else [])), environment, strange, _own(listing))
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
        files = [Path(common, "config"), asked / "config.worktree"]
        if self.trust:
            files.append(self.trust.file(common))
        return asked, tuple(map(_stamp, files))


#: Looks at all our calls. Until it is told of a home's records, nothing of a repository's own is trusted.
GUARD = Guard()


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
