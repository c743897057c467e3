"""Refs under refs/forkjoin/kept/, which keep work reachable that is on no branch."""

import re

from forkjoin.core.error import GitError, GitRefusedError
from forkjoin.git.refs import find_tip, is_ancestor, list_refs, update_refs

_FOLDER = "refs/forkjoin/kept/"
#: Agents' branches, of any home of forkjoin. They can be deleted at any time, so no other work may depend on them.
_AGENT_BRANCH = re.compile(r"refs/heads/forkjoin[/-]a[1-9]\d*-.*", re.DOTALL)
#: The number of names that are tried if git refuses to create the ref.
_ATTEMPTS = 5


async def is_reachable_elsewhere(common_dir: str, commit: str, base: str) -> bool:
    """Return whether `base`, a tag, or a branch that is no agent's contains a commit.

    Symbolic refs don't count, because git lists their targets anyway.

    Raises:
        GitError: Objects are missing, so git can't tell.
    """
    if commit == base or await is_ancestor(common_dir, commit, base):
        return True
    form = "--format=%(symref) %(refname)"
    lines = await list_refs(common_dir, f"--contains={commit}", form, "refs/heads/", "refs/tags/")
    refs = (line[1:] for line in lines if line.startswith(" "))  # other lines begin with a symbolic ref's target
    return not all(_AGENT_BRANCH.fullmatch(ref) for ref in refs)


async def keep_commit(common_dir: str, commit: str, name: str) -> str:
    """Create a ref that keeps a commit reachable, unless it exists. Return the ref.

    The ref is `name` below refs/forkjoin/kept/, with the next free number after it if that ref keeps another commit.
    """
    n = 0
    while True:
        n += 1
        ref = f"{_FOLDER}{name}" if n == 1 else f"{_FOLDER}{name}-{n}"
        try:
            await update_refs(common_dir, [f"create {ref} {commit}"], "forkjoin: kept")
            return ref
        except GitError as error:
            found = await find_tip(common_dir, ref)
            if found == commit:
                return ref
            # git also refuses a ref if there is a symbolic ref of that name, or another ref below it.
            may_be_blocked = isinstance(error, GitRefusedError) and n < _ATTEMPTS
            if found is None and not may_be_blocked:
                raise


async def find_kept_ref(common_dir: str, name: str) -> str | None:
    """Return the ref that `keep_commit` created last with this name, or `None`.

    Symbolic refs don't count.
    """
    refs = [f"{_FOLDER}{name}", f"{_FOLDER}{name}-*"]
    form = "--format=%(symref) %(refname)"
    lines = await list_refs(common_dir, "--sort=-version:refname", form, "--", *refs)
    return next((line[1:] for line in lines if line.startswith(" ")), None)
