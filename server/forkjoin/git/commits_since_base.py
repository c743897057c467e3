"""What branches add to a commit: their commits, where they left it, and what they changed since."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forkjoin.git import git
from forkjoin.git.refs import Tip

_NOT_IN_A_NAME = str.maketrans("", "", "<>\n")
_FORM = "--format=%m%x00%H%x00%T%x00%P%x00%an%x00%ae%x00%at"


class Commit(NamedTuple):
    """A commit, as git tells of it; whether it is one of those that are asked about, or where they left."""

    mark: str
    id: str
    tree: str
    parents: str
    name: str
    address: str
    at: str  #: seconds since 1970; old histories have odd dates

    @property
    def author(self) -> str:
        """As git takes it, whatever is in an old commit."""
        return "{} <{}>".format(*(part.translate(_NOT_IN_A_NAME) for part in (self.name, self.address)))


@dataclass(frozen=True, slots=True)
class CommitsSinceBase:
    """What a branch adds."""

    commits: tuple[Commit, ...]  #: its own, the newest first
    base: Tip | None  #: the only commit where it left; none where it left at several, or shares work with another


async def find_commits_since_base(repository: str, head: str, tips: Sequence[Tip]) -> list[CommitsSinceBase]:
    """What each of these branches adds to `head`, in one call."""
    asked = "".join(f"{one}\n" for one in (f"^{head}", *(tip.commit for tip in tips)))
    listing = await git.output(repository, "log", "--stdin", "-z", "--boundary", _FORM, stdin=asked.encode())
    fields = listing.split("\0")
    rows = [Commit(*fields[n : n + 7]) for n in range(0, len(fields) - 6, 7)]
    outside = {row.id: Tip(row.id, row.tree) for row in rows if row.mark == "-"}
    commits = {row.id: row for row in rows if row.mark != "-"}
    own = [_walk(tip.commit, commits) for tip in tips]
    sharing = Counter(commit.id for one in own for commit in one)
    return [_added(mine, outside, sharing) for mine in own]


def _walk(tip: str, commits: Mapping[str, Commit]) -> list[Commit]:
    """The commits of a branch, the newest first."""
    found: dict[str, Commit] = {}
    waiting = [tip]
    while waiting:
        if (commit := commits.get(waiting.pop())) and commit.id not in found:
            found[commit.id] = commit
            waiting += commit.parents.split()
    return list(found.values())


def _added(own: list[Commit], outside: Mapping[str, Tip], sharing: Mapping[str, int]) -> CommitsSinceBase:
    parents = {parent for commit in own for parent in commit.parents.split()}
    left_at = [outside[parent] for parent in parents if parent in outside]
    alone = len(left_at) == 1 and all(sharing[commit.id] == 1 and commit.parents for commit in own)
    return CommitsSinceBase(tuple(own), left_at[0] if alone else None)
