"""Authors and committers of the commits that forkjoin makes."""

from pathlib import Path

from forkjoin.git import git as asked
from forkjoin.git.commit_identity import find_fallback_identity
from support.harness import git


async def test_a_configured_identity_is_kept(repository: Path) -> None:
    assert await find_fallback_identity(repository) == {}


async def test_commits_without_a_configured_identity_are_by_forkjoin(repository: Path, user: Path) -> None:
    (user / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    extra = await find_fallback_identity(repository)
    made = await asked.output(repository, "commit-tree", "-m", "x", "HEAD^{tree}", extra=extra)
    assert git(repository, "log", "-1", "--format=%an <%ae> %cn <%ce>", made) == " ".join(
        2 * ["forkjoin <forkjoin@localhost>"]
    )
