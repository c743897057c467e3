"""Remotes of nested repositories, and whether they still exist when the agents' worktrees are gone.

A commit that was pushed counts as saved only if the remote repository is in no agent's worktree.
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

#: A line of `git remote -v`. A remote without a URL is called by its URL. A URL may contain line feeds.
_LINE = re.compile(r"([^\t\n]+)\t(?:\n|(.*?) \((?:fetch|push)\)(?: \[[^\n]*\])?\n)", re.DOTALL)
#: How git distinguishes a path from `host:path` and `scheme://host` (connect.c).
_PATH = re.compile(r"[^:/]*(?:/|$)")
_FILE = "file://"


@dataclass(frozen=True, slots=True)
class Remotes:
    """The remotes of one repository."""

    within: Within
    base: Path  #: the folder at which relative paths start
    lasting_refs: tuple[str, ...] = ("refs/remotes/", "refs/tags/")  #: prefixes of the refs of remotes that last

    def is_lasting(self, url: str) -> bool:
        """Return whether the repository at a URL exists outside all agents' worktrees.

        Blocks.
        """
        if url.startswith(_FILE):
            url = f"/{unquote(url.removeprefix(_FILE)).lstrip('/')}"
        elif not _PATH.match(url):
            return True
        paths = [self.base / os.path.expanduser(f"{url}{suffix}") for suffix in ("", ".git")]  # noqa: PTH111 - ~nobody
        top = next((path for path in paths if os.path.exists(path)), None)  # noqa: PTH110 - False if unreadable
        if top is None:
            return False
        with contextlib.suppress(OSError):
            git_dir = follow_git_link(top / ".git") or follow_git_link(top) or top
            return not self.within.is_deleted_with_agents(common_dir_path(git_dir))
        return False


async def find_remotes(within: Within, nested: Nested) -> Remotes:
    """Ask git for the remotes of a repository, with included files and rewritten URLs.

    Raises:
        GitError: git can't read the configuration.
    """
    remotes = Remotes(within, nested.tree or nested.folder)
    listing = await git.output(nested.folder, "remote", "-v") if nested.is_deleted_with_worktree else ""
    urls = [(match[1], match[2] or match[1]) for match in _LINE.finditer(f"{listing}\n")]
    vanishing = await to_thread.run_sync(lambda: {name for name, url in urls if not remotes.is_lasting(url)})
    if not vanishing:
        return remotes
    lasting = {name for name, _ in urls} - vanishing
    return Remotes(within, remotes.base, tuple(f"refs/remotes/{name}/" for name in lasting))
