"""Commits that branches have and a target has not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forkjoin.git import git
from forkjoin.git.refs import Tip

#: Characters that git doesn't allow in an author's name. Old commits may have them.
_NOT_IN_A_NAME = str.maketrans("", "", "<>\n")
_FORMAT = "--format=%m%x00%H%x00%T%x00%P%x00%an%x00%ae%x00%at"


class Commit(NamedTuple):
    """A commit as `git log --boundary` prints it."""

    mark: str  #: `-` for a commit of the target from which a branch starts
    id: str
    tree: str
    parents: str  #: ids, separated by spaces
    name: str  #: of the author
    address: str  #: of the author
    at: str  #: seconds since 1970; odd in some old histories

    @property
    def author(self) -> str:
        """The author as `name <address>`, in a form that git accepts for a new commit."""
        return "{} <{}>".format(*(part.translate(_NOT_IN_A_NAME) for part in (self.name, self.address)))


@dataclass(frozen=True, slots=True)
class CommitsSinceBase:
    """The commits that one branch has and the target has not."""

    commits: tuple[Commit, ...]  #: the newest first
    base: Tip | None  #: where the branch starts; `None` if it starts at several commits, or shares commits with another


async def find_commits_since_base(repository: str, head: str, tips: Sequence[Tip]) -> list[CommitsSinceBase]:
    """Return the commits of each branch that `head` has not, with one git call.

    Args:
        head: The commit of the target.
        tips: The branches' tips.
    """
    stdin = "".join(f"{revision}\n" for revision in (f"^{head}", *(tip.commit for tip in tips)))
    listing = await git.output(repository, "log", "--stdin", "-z", "--boundary", _FORMAT, stdin=stdin.encode())
    fields = listing.split("\0")
    rows = [Commit(*fields[n : n + 7]) for n in range(0, len(fields) - 6, 7)]
    boundary = {row.id: Tip(row.id, row.tree) for row in rows if row.mark == "-"}
    commits = {row.id: row for row in rows if row.mark != "-"}
    branches = [_walk(tip.commit, commits) for tip in tips]
    branch_counts = Counter(commit.id for branch in branches for commit in branch)
    return [_find_base(branch, boundary, branch_counts) for branch in branches]


def _walk(tip: str, commits: Mapping[str, Commit]) -> list[Commit]:
    """Return the commits that are reachable from `tip`, the newest first."""
    found: dict[str, Commit] = {}
    waiting = [tip]
    while waiting:
        if (commit := commits.get(waiting.pop())) and commit.id not in found:
            found[commit.id] = commit
            waiting += commit.parents.split()
    return list(found.values())


def _find_base(
    commits: list[Commit], boundary: Mapping[str, Tip], branch_counts: Mapping[str, int]
) -> CommitsSinceBase:
    """Return a branch's commits with their base.

    Args:
        commits: The commits of the branch.
        boundary: The target's commits from which branches start, by id.
        branch_counts: The number of branches that have a commit, by its id.
    """
    parents = {parent for commit in commits for parent in commit.parents.split()}
    bases = [boundary[parent] for parent in parents if parent in boundary]
    is_alone = all(branch_counts[commit.id] == 1 and commit.parents for commit in commits)
    return CommitsSinceBase(tuple(commits), bases[0] if is_alone and len(bases) == 1 else None)
