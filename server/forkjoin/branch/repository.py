"""What a folder's repository is and how its checkout stands: short reads by GitPython, in a thread, closed at once."""

from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread
from git import InvalidGitRepositoryError, NoSuchPathError, Repo

from forkjoin.branch.git import environment
from forkjoin.error import CallerError

_CALM = {
    "GIT_CONFIG_COUNT": "2",
    **{"GIT_CONFIG_KEY_0": "diff.autoRefreshIndex", "GIT_CONFIG_VALUE_0": "false"},  # else `git diff` writes the index
    **{"GIT_CONFIG_KEY_1": "core.fsmonitor", "GIT_CONFIG_VALUE_1": "false"},
}


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder's repository as it stands.

    Attributes:
        top: The work tree's root; none in a bare repository.
        branch: Its full ref name; none where HEAD is detached.
        head: The commit; none in a repository without one.
    """

    common_dir: str
    top: str | None
    branch: str | None
    head: str | None
    dirty: bool


async def look(folder: Path, *, dirt: bool = False) -> Checkout:
    """How the repository around `folder` stands; `dirty` (tracked files alone) is only looked for if asked.

    Raises:
        CallerError: There is no repository.
    """
    return await to_thread.run_sync(_look, folder, dirt)


def _look(folder: Path, dirt: bool) -> Checkout:
    try:
        with Repo(folder, search_parent_directories=True) as repo:
            repo.git.update_environment(**environment(_CALM))
            head = repo.head
            return Checkout(
                common_dir=str(Path(repo.common_dir).resolve()),
                top=str(Path(repo.working_tree_dir).resolve()) if repo.working_tree_dir else None,
                branch=None if head.is_detached else head.reference.path,
                head=head.commit.hexsha if head.is_valid() else None,
                dirty=dirt and not repo.bare and head.is_valid() and repo.is_dirty(untracked_files=False),
            )
    except (InvalidGitRepositoryError, NoSuchPathError):
        raise CallerError(f"{folder} is in no git repository; start the lead in one, or run git init there.") from None


async def commits(common_dir: str, base: str, tip: str, limit: int) -> list[str]:
    """The commits of `tip` that `base` has not, newest first, each as "<short id> <subject>"; at most `limit`."""
    return await to_thread.run_sync(_commits, common_dir, base, tip, limit)


def _commits(common_dir: str, base: str, tip: str, limit: int) -> list[str]:
    with Repo(common_dir) as repo:
        repo.git.update_environment(**environment(_CALM))
        found = repo.iter_commits(f"{base}..{tip}", max_count=limit)
        return [f"{commit.hexsha[:10]} {str(commit.summary)[:100]}" for commit in found]
