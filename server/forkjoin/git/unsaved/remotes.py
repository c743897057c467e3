"""Remotes of nested repositories, and whether they outlast the agents' worktrees.

A commit that was pushed to a remote counts as saved only if the remote repository is in no agent's worktree.
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
from forkjoin.git.unsaved.nested_repositories import NestedRepository, RemovedFolders

#: A line of `git remote -v`: name and URL. If a line has no URL, the name is the URL. A URL may contain line feeds.
_LINE = re.compile(r"([^\t\n]+)\t(?:\n|(.*?) \((?:fetch|push)\)(?: \[[^\n]*\])?\n)", re.DOTALL)
#: A URL that is a path, as git tells it from `host:path` and `scheme://host` (connect.c): a `/` comes before any `:`.
_PATH = re.compile(r"[^:/]*(?:/|$)")
_FILE = "file://"


@dataclass(frozen=True, slots=True)
class Remotes:
    """The remotes of one repository."""

    removed: RemovedFolders  #: the folders that are deleted with the agent's worktree
    base: Path  #: the folder to which relative paths of remotes refer
    #: Prefixes of the refs whose commits are saved in remotes that outlast the agents' worktrees.
    lasting_refs: tuple[str, ...] = ("refs/remotes/", "refs/tags/")

    def is_lasting(self, url: str) -> bool:
        """Return whether the repository at a URL outlasts all agents' worktrees. Blocks.

        A repository on another machine does. One on this machine does if it exists outside of these worktrees.
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
            return not self.removed.is_deleted_with_agents(common_dir_path(git_dir))
        return False


async def find_remotes(removed: RemovedFolders, nested: NestedRepository) -> Remotes:
    """Return the remotes that git reads from a nested repository's configuration.

    git follows included files and rewrites URLs. If the agent's worktree doesn't contain the repository's objects, its
    remotes are not read: the refs of all of them count as lasting.

    Raises:
        GitError: git can't read the configuration.
    """
    remotes = Remotes(removed, nested.tree or nested.folder)
    listing = await git.output(nested.folder, "remote", "-v") if nested.is_deleted_with_worktree else ""
    urls = [(match[1], match[2] or match[1]) for match in _LINE.finditer(f"{listing}\n")]
    vanishing = await to_thread.run_sync(lambda: {name for name, url in urls if not remotes.is_lasting(url)})
    if not vanishing:
        return remotes
    lasting = {name for name, _ in urls} - vanishing
    return Remotes(removed, remotes.base, tuple(f"refs/remotes/{name}/" for name in lasting))
