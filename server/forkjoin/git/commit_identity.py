"""Authors and committers of the commits that forkjoin makes."""

from dataclasses import dataclass
from pathlib import Path

from forkjoin.git import git

_ROLES = ("AUTHOR", "COMMITTER")
_FORKJOIN = {"NAME": "forkjoin", "EMAIL": "forkjoin@localhost"}

#: Environment variables that make forkjoin author and committer, in 1970. With these, the same content always makes the
#: same commit.
FIXED_SIGNATURE = {
    f"GIT_{role}_{field}": value for role in _ROLES for field, value in {**_FORKJOIN, "DATE": "@0 +0000"}.items()
}


@dataclass(frozen=True, slots=True)
class Signature:
    """The author and committer of a commit, each as `name <address> <seconds since 1970> zone`."""

    author: str
    committer: str


async def find_fallback_identity(where: str | Path) -> dict[str, str]:
    """Return environment variables that make forkjoin author and committer.

    Return an empty dict if git knows the user's identity in the repository at `where`.
    """
    code, _, _ = await git.run(where, "var", "GIT_COMMITTER_IDENT")
    if code == 0:
        return {}
    return {f"GIT_{role}_{field}": value for role in _ROLES for field, value in _FORKJOIN.items()}


async def make_signature(where: str | Path, at: float) -> Signature:
    """Return the author and committer of commits that are made in a repository.

    Both are the user, or forkjoin if git doesn't know the user's identity.

    Args:
        where: A worktree's root, or a git folder.
        at: The time of the commits, in seconds since 1970. Their time zone is UTC.
    """
    dates = {f"GIT_{role}_DATE": f"@{int(at)} +0000" for role in _ROLES}
    extra = await find_fallback_identity(where) | dates
    author, committer = [await git.output(where, "var", f"GIT_{role}_IDENT", extra=extra) for role in _ROLES]
    return Signature(author, committer)
