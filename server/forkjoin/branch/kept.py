"""Work that no branch has: it stays reachable under refs/forkjoin/kept/ until someone discards it."""

import itertools

from forkjoin.branch import git
from forkjoin.error import GitError


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
