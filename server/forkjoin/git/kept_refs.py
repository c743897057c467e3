"""Refs under refs/forkjoin/kept/, which keep work reachable that no branch has, until someone discards it."""

import itertools
import re

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git.refs import find_tip, is_ancestor, list_refs, update_refs

_FOLDER = "refs/forkjoin/kept/"
#: Branches of agents of any forkjoin home. They can be deleted at any time, so they keep no work of other agents.
_AGENT_BRANCH = re.compile(r"refs/heads/forkjoin[/-]a[1-9]\d*-.*", re.DOTALL)
#: How many names are tried if git refuses to create the ref.
_ATTEMPTS = 5


async def is_reachable_elsewhere(common_dir: str, commit: str, base: str) -> bool:
    """Return whether a commit is reachable without the agents' branches.

    It may be reachable from `base`, from a tag, or from a branch that is no agent's.

    Raises:
        GitError: Objects are missing, so git can't tell.
    """
    if commit == base or await is_ancestor(common_dir, commit, base):
        return True
    form = "--format=%(symref) %(refname)"
    lines = await list_refs(common_dir, f"--contains={commit}", form, "refs/heads/", "refs/tags/")
    refs = (line[1:] for line in lines if line.startswith(" "))  # leaves out symbolic refs; git lists their targets too
    return not all(_AGENT_BRANCH.fullmatch(ref) for ref in refs)


async def keep_commit(common_dir: str, commit: str, name: str) -> str:
    """Create a ref that keeps a commit reachable. Return the ref.

    The ref is called `name`, with a number after it if that name keeps another commit already.
    """
    for n in itertools.count(1):
        ref = f"{_FOLDER}{name}" if n == 1 else f"{_FOLDER}{name}-{n}"
        try:
            await update_refs(common_dir, [f"create {ref} {commit}"], "forkjoin: kept")
            return ref
        except GitError as error:
            found = await find_tip(common_dir, ref)
            if found == commit:
                return ref
            may_be_blocked = isinstance(error, GitRefusedError) and n < _ATTEMPTS  # by a symbolic ref, or a ref below
            if found is None and not may_be_blocked:
                raise
    raise AssertionError("itertools.count never ends")


async def find_kept_ref(common_dir: str, name: str) -> str | None:
    """Return the newest ref that keeps a commit under this name, or `None`.

    Symbolic refs don't count.
    """
    refs = [f"{_FOLDER}{name}", f"{_FOLDER}{name}-*"]
    form = "--format=%(symref) %(refname)"
    lines = await list_refs(common_dir, "--sort=-version:refname", form, "--", *refs)
    return next((line[1:] for line in lines if line.startswith(" ")), None)
