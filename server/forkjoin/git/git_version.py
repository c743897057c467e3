"""The version of the installed git."""

import re

from forkjoin.core.error import CallerError
from forkjoin.git import git

#: The oldest git with `merge-tree --write-tree`.
OLDEST_GIT = (2, 38)


async def read_version() -> tuple[int, ...]:
    """Return the version of the installed git as numbers, e.g. (2, 47, 1)."""
    found = re.search(r"\d+(\.\d+)*", await git.output("/", "version"))
    return tuple(map(int, found[0].split("."))) if found else ()


async def require_version() -> None:
    """Raise a CallerError if git is missing or too old."""
    try:
        found = await read_version()
    except FileNotFoundError:
        raise CallerError("git was not found in PATH; install git 2.38 or newer") from None
    if found < OLDEST_GIT:
        raise CallerError(f"git {'.'.join(map(str, found))} is too old: forkjoin needs 2.38 or newer (git merge-tree)")
