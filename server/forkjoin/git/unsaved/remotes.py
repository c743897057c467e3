"""Remotes of nested repositories: which of them outlive the agents' worktrees.

A commit that was pushed to another repository counts as saved only if that one stays without the agents' worktrees.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from anyio import to_thread

from forkjoin.git import git
from forkjoin.git.git_folder import common_dir_path, follow_git_link
from forkjoin.git.worktrees.nested_repositories import Nested, Within

#: A line of `git remote -v`. A remote without a URL is called by it; a URL may have a line end.
_LINE = re.compile(r"([^\t\n]+)\t(?:\n|(.*?) \((?:fetch|push)\)(?: \[[^\n]*\])?\n)", re.DOTALL)
#: How git tells a path from `host:path` and `scheme://host` (connect.c).
_PATH = re.compile(r"[^:/]*(?:/|$)")
_FILE = "file://"


@dataclass(frozen=True, slots=True)
class Remotes:
    """The remotes of one repository."""

    within: Within
    base: Path  #: where a relative path starts
    refs: tuple[str, ...] = ("refs/remotes/", "refs/tags/")  #: prefixes of the refs that come from remotes that stay

    def outlives(self, url: str) -> bool:
        """Return whether the repository at a URL stays when the agents' worktrees have gone. Blocks."""
        if url.startswith(_FILE):
            url = f"/{unquote(url.removeprefix(_FILE)).lstrip('/')}"
        elif not _PATH.match(url):
            return True
        paths = [self.base / os.path.expanduser(f"{url}{suffix}") for suffix in ("", ".git")]  # noqa: PTH111 - ~nobody
        top = next((path for path in paths if os.path.exists(path)), None)  # noqa: PTH110 - it may be closed
        with contextlib.suppress(OSError):
            return top is not None and not self.within.is_deleted_with_agents(
                common_dir_path(follow_git_link(top / ".git") or follow_git_link(top) or top)
            )
        return False


async def find_remotes(within: Within, nested: Nested) -> Remotes:
    """Ask git for the remotes of a repository, included files and rewritten URLs among them.

    Raises:
        GitError: git can't tell.
    """
    remotes = Remotes(within, nested.tree or nested.folder)
    listing = await git.output(nested.folder, "remote", "-v") if nested.is_deleted_with_worktree else ""
    urls = [(found[1], found[2] or found[1]) for found in _LINE.finditer(f"{listing}\n")]
    near = await to_thread.run_sync(lambda: {name for name, url in urls if not remotes.outlives(url)})
    if not near:
        return remotes
    far = {name for name, _ in urls} - near
    return Remotes(within, remotes.base, tuple(f"refs/remotes/{name}/" for name in far))
