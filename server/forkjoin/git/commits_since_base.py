"""Commits that are on branches and not on their target."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forkjoin.git import git
from forkjoin.git.refs import Tip

#: Characters that git refuses in the author of a new commit. Old commits may have them.
_NOT_IN_A_NAME = str.maketrans("", "", "<>\n")
_FORMAT = "--format=%m%x00%H%x00%T%x00%P%x00%an%x00%ae%x00%at"


class Commit(NamedTuple):
    """A commit as `git log --boundary` prints it."""

    mark: str  #: `-` for a commit of the target that is the parent of a branch's commit
    id: str
    tree: str
    parents: str  #: ids, separated by spaces
    name: str  #: the author's name
    address: str  #: the author's address
    at: str  #: the author's time in seconds since 1970; empty in some old histories

    @property
    def author(self) -> str:
        """The author as `name <address>`, in a form that git accepts for a new commit."""
        return "{} <{}>".format(*(part.translate(_NOT_IN_A_NAME) for part in (self.name, self.address)))


@dataclass(frozen=True, slots=True)
class CommitsSinceBase:
    """The commits that are on one branch and not on the target."""

    commits: tuple[Commit, ...]  #: the branch's tip first
    #: The commit of the target from which the branch starts. `None` if there isn't exactly one, if another branch has
    #: some of the same commits, or if one of the commits has no parent.
    base: Tip | None


async def find_commits_since_base(repository: str, head: str, tips: Sequence[Tip]) -> list[CommitsSinceBase]:
    """Return each branch's commits that are not on the target, with one call of git.

    Args:
        head: The target's commit.
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
    return [_with_base(branch, boundary, branch_counts) for branch in branches]


def _walk(tip: str, commits: Mapping[str, Commit]) -> list[Commit]:
    """Return those of `commits` that are reachable from `tip`, which comes first."""
    found: dict[str, Commit] = {}
    waiting = [tip]
    while waiting:
        if (commit := commits.get(waiting.pop())) and commit.id not in found:
            found[commit.id] = commit
            waiting += commit.parents.split()
    return list(found.values())


def _with_base(
    commits: list[Commit], boundary: Mapping[str, Tip], branch_counts: Mapping[str, int]
) -> CommitsSinceBase:
    """Return a branch's commits with the commit of the target where they start.

    Args:
        commits: The commits of the branch.
        boundary: The commits of the target from which any branch starts, by id.
        branch_counts: For each commit's id, the number of branches that have the commit.
    """
    parents = {parent for commit in commits for parent in commit.parents.split()}
    bases = [boundary[parent] for parent in parents if parent in boundary]
    is_separate = all(branch_counts[commit.id] == 1 and commit.parents for commit in commits)
    return CommitsSinceBase(tuple(commits), bases[0] if is_separate and len(bases) == 1 else None)
