"""Work that no branch has: it stays reachable under refs/forkjoin/kept/ until someone discards it."""

import itertools
import re

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git.refs import find_tip, is_ancestor, list_refs, update_refs

#: An agent's branch, of whatever home: such may go at any time, and keeps nothing of another's.
_AGENTS = re.compile(r"refs/heads/forkjoin[/-]a[1-9]\d*-.*", re.DOTALL)

#: How many names are tried where nothing is kept, and yet no ref can be made.
_NAMES = 5


async def is_reachable_elsewhere(common_dir: str, commit: str, base: str) -> bool:
    """Whether a commit stays reachable without an agent's branch: from `base`, another branch, or a tag.

    Raises:
        GitError: Objects are missing, so that it can't be told.
    """
    if commit == base or await is_ancestor(common_dir, commit, base):
        return True
    form = "--format=%(symref) %(refname)"
    lines = await list_refs(common_dir, f"--contains={commit}", form, "refs/heads/", "refs/tags/")
    refs = (line[1:] for line in lines if line.startswith(" "))  # of a symbolic ref the other is told
    return not all(_AGENTS.fullmatch(ref) for ref in refs)


async def keep_commit(common_dir: str, commit: str, name: str) -> str:
    """Keep a commit reachable; the ref that does it: `name`, or one with a suffix where that keeps another commit."""
    for n in itertools.count(1):
        ref = f"refs/forkjoin/kept/{name}" if n == 1 else f"refs/forkjoin/kept/{name}-{n}"
        try:
            await update_refs(common_dir, [f"create {ref} {commit}"], "forkjoin: kept")
            return ref
        except GitError as error:
            found = await find_tip(common_dir, ref)
            if found == commit:
                return ref
            is_in_the_way = isinstance(error, GitRefusedError) and n < _NAMES  # a symbolic ref, or one below it
            if found is None and not is_in_the_way:
                raise
    raise AssertionError("there is always a next number")


async def find_kept_ref(common_dir: str, name: str) -> str | None:
    """The ref that has kept something under this name, the newest where several have."""
    refs = [f"refs/forkjoin/kept/{name}", f"refs/forkjoin/kept/{name}-*"]
    form = "--format=%(symref) %(refname)"
    lines = await list_refs(common_dir, "--sort=-version:refname", form, "--", *refs)
    return next((line[1:] for line in lines if line.startswith(" ")), None)  # a symbolic ref keeps nothing
