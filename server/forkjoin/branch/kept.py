"""Work that no branch has: it stays reachable under refs/forkjoin/kept/ until someone discards it."""

import itertools
import re

from forkjoin.branch import git
from forkjoin.error import GitError

#: An agent's branch, of whatever home: such may go at any time, and keeps nothing of another's.
_AGENTS = re.compile(r"refs/heads/forkjoin[/-]a[1-9]\d*-.*", re.DOTALL)


async def is_elsewhere(common_dir: str, commit: str, base: str) -> bool:
    """Whether a commit stays reachable without an agent's branch: from `base`, another branch, or a tag.

    Raises:
        GitError: Objects are missing, so that it can't be told.
    """
    if commit == base or await git.is_ancestor(common_dir, commit, base):
        return True
    form = "--format=%(symref) %(refname)"
    listing = await git.git(common_dir, "for-each-ref", f"--contains={commit}", form, "refs/heads/", "refs/tags/")
    refs = (line[1:] for line in listing.splitlines() if line.startswith(" "))  # of a symbolic ref the other is told
    return not all(_AGENTS.fullmatch(ref) for ref in refs)


async def keep(common_dir: str, commit: str, name: str) -> str:
    """Keep a commit reachable; the ref that does it: `name`, or one with a suffix where that keeps another commit."""
    for n in itertools.count(1):
        ref = f"refs/forkjoin/kept/{name}" if n == 1 else f"refs/forkjoin/kept/{name}-{n}"
        try:
            await git.update_refs(common_dir, [f"create {ref} {commit}"], "forkjoin: kept")
            return ref
        except GitError:
            found = await git.tip(common_dir, ref)
            if found is None:
                raise
            if found == commit:
                return ref
    raise AssertionError("there is always a next number")


async def find(common_dir: str, name: str) -> str | None:
    """The ref that has kept something under this name, the newest where several have."""
    tips = [f"refs/forkjoin/kept/{name}", f"refs/forkjoin/kept/{name}-*"]
    listing = await git.git(common_dir, "for-each-ref", "--sort=-version:refname", "--format=%(refname)", "--", *tips)
    return next(iter(listing.splitlines()), None)
