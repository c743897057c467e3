"""A landing's scratch worktree is made ready as an agent's is: what is shared and ignored, setup, ports, teardown."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest
from branches import commit
from forkjoin.attempt.executor import AttemptSpec
from forkjoin.config import Recipe
from forkjoin.landing.land import Lander
from forkjoin.landing.order import Order
from forkjoin.landing.scratch import Scratch
from forkjoin.main import open_loop
from forkjoin.paths import Home
from forkjoin.record.ports import first_port
from harness import GIVE_UP_S, git, kill_daemon, open_lead, open_lead_in_memory, until
from landings import ENVIRONMENT, carry_to_its_end, open_daemon, record_landing, scratch_of
from recipes import put_dependencies, want


@pytest.mark.parametrize("how", ["link", "copy"])
async def test_verify_on_each_merged_state_finds_dependencies_ignored_files_and_what_setup_makes(
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
        landed = await lead.call("merge_worktree", ids=ids)
    assert [one["id"] for one in landed["merged"]] == ids, landed
    ran = (home.state / "ran").read_text().split()
    assert (sorted(ran[:2]), ran[2:]) == (ids, ids)
    assert git(repository, "ls-tree", "--name-only", "main").split() == [
        *(".gitignore", ".worktreeinclude", "1.txt", "2.txt", "README.md", "shared.txt")
    ]
    assert scratch_of(repository, home) == []
    assert (repository / "node_modules" / "left-pad" / "index.js").read_text() == "pad\n"
    assert [folder.name for folder in home.attempts.glob("l*")] == []


async def test_where_setup_fails_a_branch_is_rejected_and_told_why(repository: Path, home: Home) -> None:
    want(repository, home, "setup = 'test ! -e bad || { echo no deps; exit 3; }'\n")
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.run("touch bad", "touch good")
        landed = await lead.call("merge_worktree", ids=ids, verify="true")
    assert landed["rejected"] == [{"id": ids[0], "why": "setup failed: exit 3\nno deps"}]
    assert [one["id"] for one in landed["merged"]] == [ids[1]]


async def test_teardown_is_run_before_the_scratch_worktree_goes_and_once(repository: Path, home: Home) -> None:
    want(repository, home, f"teardown = 'echo \"$PWD $FORKJOIN_PORT_BASE\" >> {home.state}/torn; exit 1'\n")
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.run("touch one", "touch two")
        await lead.call("merge_worktree", ids=ids, verify="true")
        await lead.call("merge_worktree", ids=ids)
    (line,) = (home.state / "torn").read_text().splitlines()
    assert line == f"{home.worktrees}/landing-1 {first_port(home.state) + 20}"
    assert [folder.name for folder in home.attempts.glob("l*")] == []


@pytest.mark.parametrize(("others", "told"), [({"MINE": "another's"}, "another's"), (None, "nobody's")])
async def test_teardown_is_run_in_what_others_have_or_in_nothing_where_its_environment_is_lost(
    repository: Path, home: Home, caplog: pytest.LogCaptureFixture, others: dict[str, str] | None, told: str
) -> None:
    number = await record_landing(home, repository, {"one": "x\n"}, "true")
    recipe = Recipe(teardown=f'echo "$FORKJOIN_SLUG ${{MINE:-nobody\'s}}" >> {home.state}/torn')
    async with open_daemon(home) as loop:
        order = Order(loop.rooms, await loop.store.landing(number), str(repository / ".git"), ENVIRONMENT, recipe)
        main = git(repository, "rev-parse", "main")
        assert await Scratch(order).verify([await loop.store.agent(1)], main, "true") is None
        if others:
            loop.rooms.environments.lend(order.landing.project, "another", loop.rooms.environments.keep(others))
        await Scratch(replace(order, environment=None)).clear()
    assert re.fullmatch(rf"fj-[0-9a-f]{{8}}-l{number} {told}\n", (home.state / "torn").read_text())
    assert "its environment is lost" in caplog.text
    assert scratch_of(repository, home) == []


async def test_a_teardown_that_a_daemon_which_died_has_begun_is_ended_before_verify_is_run_anew(
    repository: Path, home: Home
) -> None:
    number = await record_landing(home, repository, {"one": "x\n"}, "rm -f disturbed; sleep 0.2; test ! -e disturbed")
    scratch = home.worktrees / f"landing-{number}"
    async with open_daemon(home) as loop:
        disturbs = f"while :; do touch {scratch}/disturbed; touch {home.state}/on; done"
        spec = AttemptSpec(f"l{number}-teardown", ("sh", "-c", disturbs), "/", ENVIRONMENT)
        await loop.rooms.executor.submit(spec)
        await until((home.state / "on").exists)
        landed = await carry_to_its_end(Lander(loop.rooms), loop.store, number)
    assert [merged.id for merged in landed.merged] == ["a1"]


async def test_a_daemon_that_is_killed_while_setup_runs_leaves_it_to_the_next_with_what_was_trusted_then(
    repository: Path, home: Home
) -> None:
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
    async with open_loop(home) as loop:
        assert await loop.store.open_landings() == []
