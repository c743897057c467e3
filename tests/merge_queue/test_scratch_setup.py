"""Scratch worktrees are made ready like agents' worktrees: shared and ignored files, setup, ports."""

from functools import partial
from pathlib import Path

import anyio
import pytest
from forkjoin.app import open_reconciler
from forkjoin.core.paths import Home
from support.branches import commit
from support.harness import GIVE_UP_S, git, kill_daemon, open_lead, open_lead_in_memory, until
from support.merges import list_scratch_worktrees
from support.repository_configs import put_dependencies, want


@pytest.mark.parametrize("how", ["link", "copy"])
async def test_verify_finds_shared_and_ignored_files_and_the_results_of_setup(
    repository: Path, home: Home, how: str
) -> None:
    put_dependencies(repository, "node_modules/\n.env")
    commit(repository, {".worktreeinclude": ".env\n"})
    (repository / ".env").write_text("secret\n")
    looks = "test -e node_modules/left-pad/index.js && test -e .env && test $(cat made.txt) = $FORKJOIN_PORT_BASE"
    makes = f"echo $FORKJOIN_PORT_BASE > made.txt; echo $FORKJOIN_AGENT$FORKJOIN_AGENTS >> {home.state}/ran"
    recipe = (
        f"setup = 'test -e node_modules; {makes}'\n"
        f"verify = '{looks} && test -z \"$(git status --porcelain -- node_modules)\"'\n"
    )
    want(repository, home, f"{recipe}[share]\nnode_modules = '{how}'\n")
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.run("rm made.txt; echo 1 > 1.txt; echo a1", "rm made.txt; echo 2 > 2.txt", verify="true")
        report = await lead.call("merge_worktree", ids=ids)
    assert [one["id"] for one in report["merged"]] == ids, report
    ran = (home.state / "ran").read_text().split()
    assert (sorted(ran[:2]), ran[2:]) == (ids, ids)
    assert git(repository, "ls-tree", "--name-only", "main").split() == [
        *(".gitignore", ".worktreeinclude", "1.txt", "2.txt", "README.md", "shared.txt")
    ]
    assert list_scratch_worktrees(repository, home) == ["target-1"]
    assert (repository / "node_modules" / "left-pad" / "index.js").read_text() == "pad\n"


async def test_a_branch_whose_setup_fails_is_rejected_with_the_reason(repository: Path, home: Home) -> None:
    want(repository, home, "setup = 'test ! -e bad || { echo no deps; exit 3; }'\n")
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.run("touch bad", "touch good")
        report = await lead.call("merge_worktree", ids=ids, verify="true")
    assert report["rejected"] == [{"id": ids[0], "why": "setup failed: exit 3\nno deps"}]
    assert [one["id"] for one in report["merged"]] == [ids[1]]


async def test_setup_continues_with_the_same_recipe_when_the_daemon_is_killed(repository: Path, home: Home) -> None:
    wait = f"until test -e {home.state}/go; do sleep 0.02; done"
    async with open_lead(repository) as lead, anyio.create_task_group() as tasks:
        ids = await lead.run("touch one")
        want(repository, home, f"setup = 'echo x >> {home.state}/ran; {wait}'\n")
        tasks.start_soon(partial(lead.call, "merge_worktree", ids=ids, verify="test -e one"))
        await until((home.state / "ran").exists)
        kill_daemon(repository, home)
        want(repository, home, "setup = 'exit 1'\n")
        (home.state / "go").touch()
        with anyio.fail_after(GIVE_UP_S):
            await lead.until(ids[0], merge="merged")
    assert (home.state / "ran").read_text() == "x\n"
    async with open_reconciler(home) as reconciler:
        assert await reconciler.store.merges.open() == []
