"""What in a repository's own configuration can run a command, and how git is kept from running it.

Agents share that configuration and may write to it. What has a fixed name is overridden in every call (see git.py); so
what is left are filters, merge drivers and whatever a partial clone fetches missing objects by. Of these, the person's
own are run: what is in the configuration of the user or the system, what was there when the project was first recorded,
before an agent ran in it, and what `forkjoin trust` was said to. In place of any other git is told the person's own of
the same name, else none: no filter, git's text merge, no fetch.
"""

import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from forkjoin.error import CallerError
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

#: git's own text merge, as a driver: an empty command would pass for a merge without a conflict.
_TEXT_MERGE = "git merge-file -q --marker-size=%L %A %O %B || exit 1"
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
    entries: list[Entry] = []
    includes = False
    for scope, said in zip(fields[::2], fields[1::2], strict=False):
        key, _, value = said.partition("\n")
        entry = Entry(scope, key, value)
        includes |= bool(_INCLUDE.fullmatch(key)) and entry.is_repositorys
        if any(kind.fullmatch(key) for kind in (_FILTER, _MERGE, _HOOK, _FETCH)):
            entries.append(entry)
    return entries, includes


def override(entries: Sequence[Entry], trusted: Trusted) -> tuple[dict[str, str], list[str]]:
    """The environment that keeps git from running what is not the person's own, and the keys of that.

    Raises:
        CallerError: There is more of it than an environment has room for.
    """
    own: dict[str, str] = {}
    strange: dict[str, None] = {}
    for entry in entries:
        if entry.is_repositorys and entry.digest not in trusted.commands:
            strange[entry.key] = None
        else:
            own[entry.key] = entry.value
    keys = list(strange)
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
class Place:
    """Whose configuration counts for a call, and the files that it is in as they are now."""

    common_dir: str
    folder: Path  #: the git folder that is asked for it
    stamp: tuple[object, ...]


class Guard:
    """Knows what is not to be run where; looks again whenever a file of the configuration has changed."""

    def __init__(self, trust: Trust | None = None) -> None:
        self.trust = trust
        self._known: dict[Path, tuple[tuple[object, ...], dict[str, str], list[str]]] = {}

    def find(self, where: str | Path, git_dir: str | None) -> Place | None:
        """The place that a call of git in `where` is about, if it is about one. Blocks."""
        folder = Path(git_dir) if git_dir else _git_dir(Path(where))
        if folder is None:
            return None
        common = _common_dir(folder)
        asked = folder if (folder / "config.worktree").exists() else Path(common)
        files = [Path(common, "config"), asked / "config.worktree"]
        if self.trust:
            files.append(self.trust.file(common))
        return Place(common, asked, tuple(map(_stamp, files)))

    def known(self, place: Place) -> dict[str, str] | None:
        """The environment for calls there, if it was learned and still holds."""
        found = self._known.get(place.folder)
        return found[1] if found and found[0] == place.stamp else None

    def learn(self, place: Place, listing: str) -> dict[str, str]:
        """The environment for calls there, from what git told of its configuration. Blocks."""
        entries, includes = read_listing(listing)
        trusted = (self.trust and self.trust.read(place.common_dir)) or Trusted()
        environment, keys = override(entries, trusted)
        # Which files are included we do not follow: such a configuration is asked for anew each time.
        self._known[place.folder] = ((*place.stamp, *(["once"] if includes else [])), environment, keys)
        return environment

    def strange(self, place: Place) -> list[str]:
        """The keys that are not obeyed there, as far as was learned."""
        return self._known[place.folder][2] if place.folder in self._known else []


def _git_dir(where: Path) -> Path | None:
    """The git folder of a call in `where`, which is the root of a worktree or a git folder itself."""
    link = where / ".git"
    if link.is_dir():
        return link
    try:
        return where / os.fsdecode(link.read_bytes()).removeprefix("gitdir:").strip()
    except OSError:
        return where if (where / "HEAD").exists() else None


def _common_dir(folder: Path) -> str:
    try:
        link = os.fsdecode((folder / "commondir").read_bytes()).removesuffix("\n")
    except OSError:
        link = ""
    return os.path.realpath(folder / link)


def _stamp(file: Path) -> object:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
