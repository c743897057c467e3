"""A full disk below the worktrees: an error says so, nothing has changed, and later spawns work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import commit, everything
from support.harness import open_lead_in_memory
from support.small_disk import small_disk


@pytest.fixture
def small(home: Home) -> Iterator[Path]:
    """The folder of worktrees, on a disk of four megabytes."""
    home.worktrees.rmdir()
    with small_disk(home.worktrees, 4) as folder:
        yield folder


#: The cause of the full disk: the base commit, or an ignored file that is copied to the worktree.
@pytest.mark.parametrize("which", ["base", "ignored"])
async def test_a_full_disk_is_reported_and_nothing_is_changed(
    repository: Path, home: Home, small: Path, which: str
) -> None:
    start = commit(repository, {".gitignore": "*.ignored\n", ".worktreeinclude": "*.ignored\n"})
    if which == "base":
        commit(repository, {"large": "x" * 6_000_000})
    else:
        (repository / "large.ignored").write_text("x" * 6_000_000)
    before = everything(repository)
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.run(f"touch {home.state}/started")
        result = await lead.call("get_result", id=first)
        assert result["state"] == "failed"
        assert "full" in result["error"] or "No space left" in result["error"]
        assert everything(repository) == before
        assert not list(small.glob("*/*"))
        assert not (home.state / "started").exists()
        (repository / "large.ignored").unlink(missing_ok=True)
        (second,) = await lead.run("echo x > x.txt", base=start)
        assert (await lead.call("get_result", id=second))["files_changed"] == 1
        await lead.call("remove_worktrees", ids=[first, second], discard_unmerged=True)


async def test_an_agent_that_fills_the_disk_keeps_what_it_wrote_and_others_go_on(
    repository: Path, home: Home, small: Path
) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.run("echo mine > mine.txt; head -c 9000000 /dev/zero > large; rm large; exit 3")
        result = await lead.call("get_result", id=first)
        assert (result["state"], result["files_changed"]) == ("failed", 1)
        (second,) = await lead.run("echo x > x.txt")
        assert (await lead.call("get_result", id=second))["state"] == "succeeded"
