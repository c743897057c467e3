"""The teardown before an agent's worktree is removed."""

from datetime import date
from functools import partial
from pathlib import Path

import anyio
import pytest
from conftest import processes_of
from forkjoin.agents.apply_retention import apply_retention
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from forkjoin.store.port_blocks import first_port
from support.harness import forkjoin, git, lead_of, open_lead, open_lead_in_memory, open_reconciler_in_memory, until
from support.repository_configs import want


def _tells(home: Home, then: str = "") -> str:
    return (
        f"teardown = 'echo \"$PWD $FORKJOIN_PORT_BASE $MINE\" >> {home.state}/torn; ls >> {home.state}/torn; {then}'\n"
    )


def torn(home: Home) -> list[str]:
    file = home.state / "torn"
    return file.read_text().splitlines() if file.exists() else []


async def test_a_teardown_runs_in_the_worktree_with_the_leads_environment(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(repository, home, _tells(home))
    monkeypatch.setenv("MINE", "theirs")
    first = first_port(home.state)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (id_,) = await lead.run("echo x > x.txt")
        monkeypatch.setenv("MINE", "another's")
        (worktree,) = home.worktrees.glob("*/a1-*")
        assert torn(home) == []
        async with lead_of(reconciler, repository, "another") as other:
            answer = await other.call("remove_worktrees", ids=[id_], discard_unmerged=True)
        assert "warnings" not in answer
        assert torn(home) == [f"{worktree} {first} theirs", "README.md", "shared.txt", "x.txt"]
        assert not worktree.exists()
        await lead.call("remove_worktrees", ids=[id_])
        assert len(torn(home)) == 4
        assert (await lead.run("echo $FORKJOIN_PORT_BASE")) == ["a2"]
        assert (await lead.call("get_result", id="a2"))["output"].strip() == str(first), "the block is free again"


async def test_a_removal_continues_with_a_warning_if_the_teardown_fails_or_hangs(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        want(repository, home, "teardown = 'echo cannot; exit 3'\n")
        first = await lead.spawn("true")
        want(repository, home, "teardown = 'setsid sleep 1000 & sleep 1000'\nteardown_minutes = 0.005\n")
        second = await lead.spawn("true")
        await lead.results(*first, *second)
        answer = await lead.call("remove_worktrees", ids=["a1", "a2"])
    assert answer["warnings"][0] == "The teardown of a1 (true) failed: exit 3. cannot"
    assert answer["warnings"][1].startswith("The teardown of a2 (true-2) failed: ended ")
    assert list(home.worktrees.glob("*/*")) == []
    assert processes_of(home.attempts) == {}


async def test_the_command_line_reports_a_failed_teardown(repository: Path, home: Home) -> None:
    want(repository, home, "teardown = 'echo cannot; exit 3'\n")
    async with open_lead(repository) as lead:
        await lead.run("true")
    assert forkjoin(repository, "rm", "a1").stdout.splitlines()[1:] == [
        "The teardown of a1 (true) failed: exit 3. cannot"
    ]


async def test_a_refused_removal_runs_no_teardown_and_a_teardown_loses_no_work(repository: Path, home: Home) -> None:
    want(repository, home, _tells(home, "rm -f later.txt x.txt"))
    async with open_lead_in_memory(home, repository) as lead:
        (id_,) = await lead.run("echo x > x.txt")
        await lead.refusal("remove_worktrees", ids=[id_])
        assert torn(home) == []
        (next(home.worktrees.glob("*/a1-*")) / "later.txt").write_text("later\n")
        kept = (await lead.call("remove_worktrees", ids=[id_], discard_unmerged=True))["removed"][0]["kept_as"]
    assert git(repository, "ls-tree", "--name-only", kept).split() == ["README.md", "later.txt", "shared.txt", "x.txt"]


def _waits(home: Home) -> str:
    return f"until test -e {home.state}/go; do sleep 0.02; done"


async def test_files_written_during_a_teardown_are_kept_and_its_deletions_are_not(repository: Path, home: Home) -> None:
    want(repository, home, _tells(home, f"{_waits(home)}; rm shared.txt"))
    async with (
        open_reconciler_in_memory(home) as reconciler,
        lead_of(reconciler, repository) as lead,
        lead_of(reconciler, repository, "b") as b,
    ):
        await lead.run("true", "true")
        (first, second) = sorted(home.worktrees.glob("*/a*"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(b.call, "remove_worktrees", ids=["a1", "a2"]))
            await until(lambda: torn(home))
            (first / "later.txt").write_text("later\n")
            (home.state / "go").touch()
        removed = (await lead.call("remove_worktrees", ids=["a1", "a2"]))["removed"]
        assert git(repository, "show", f"{removed[0]['kept_as']}:later.txt") == "later"
        assert "kept_as" not in removed[1]
    assert (first.exists(), second.exists()) == (False, False)


@pytest.mark.parametrize("what", ["a commit", "a merge"])
async def test_a_commit_or_merge_during_a_teardown_prevents_the_removal(
    repository: Path, home: Home, what: str
) -> None:
    want(repository, home, _tells(home, _waits(home)))
    async with (
        open_reconciler_in_memory(home) as reconciler,
        lead_of(reconciler, repository) as lead,
        lead_of(reconciler, repository, "b") as b,
    ):
        (id_,) = await lead.run("echo x > x.txt")
        (worktree,) = home.worktrees.glob("*/a1-*")
        said: list[str] = []

        async def remove() -> None:
            said.append(await b.refusal("remove_worktrees", ids=[id_], discard_unmerged=True))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(remove)
            await until(lambda: torn(home))
            if what == "a commit":
                git(worktree, "commit", "-q", "--allow-empty", "-m", "later")
            else:
                verify = f"until test -e {home.state}/said; do sleep 0.02; done"
                tasks.start_soon(partial(lead.call, "merge_worktree", ids=[id_], verify=verify))
                await until((home.worktrees / "target-1").exists)
            (home.state / "go").touch()
            await until(lambda: said)
            (home.state / "said").touch()
        assert worktree.exists()
    assert "othing was removed" in said[0]
    assert said[0].startswith(
        "Being merged: a1" if what == "a merge" else f"a1 ({worktree.name[3:]}): its branch was moved"
    )


async def test_after_a_restart_a_teardown_runs_in_the_environment_of_the_removing_lead(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(repository, home, _tells(home))
    async with open_lead_in_memory(home, repository, "gone") as lead:
        await lead.run("true")
    monkeypatch.setenv("MINE", "the remover's")
    async with open_lead_in_memory(home, repository, "another") as lead:
        await lead.call("remove_worktrees", ids=["a1"])
    assert torn(home)[0].endswith(f"{first_port(home.state)} the remover's")


async def test_a_teardown_that_a_dead_daemon_started_is_not_run_again(repository: Path, home: Home) -> None:
    wait = f"until test -e {home.state}/go; do sleep 0.02; done"
    want(repository, home, _tells(home, wait))
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.run("true")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(lead.call, "remove_worktrees", ids=["a1"]))
            await until(lambda: torn(home))
            tasks.cancel_scope.cancel()
    async with open_lead_in_memory(home, repository, "another") as lead:
        assert list(home.worktrees.glob("*/a1-*"))
        (home.state / "go").touch()
        await lead.call("remove_worktrees", ids=["a1"])
    assert len([line for line in torn(home) if line.endswith(f"{first_port(home.state)} ")]) == 1
    assert list(home.worktrees.glob("*/*")) == []


async def test_retention_waits_for_an_environment_in_the_project(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(repository, home, _tells(home))
    home.config_file.write_text(f"{home.config_file.read_text()}[retention]\ndays = 1\n")
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("true")
    async with open_reconciler_in_memory(home) as reconciler:
        await _days_pass(reconciler)
        assert len(list(home.worktrees.glob("*/a1-*"))) == 1
        monkeypatch.setenv("MINE", "another's")
        async with lead_of(reconciler, repository, "another") as lead:
            await lead.call("get_status")
            await _days_pass(reconciler)
        assert list(home.worktrees.glob("*/a1-*")) == []
    assert torn(home)[0].endswith(f"{first_port(home.state)} another's")


async def _days_pass(reconciler: Reconciler) -> None:
    for day in range(1, 6):
        await apply_retention(reconciler.services, date(2040, 1, day), [])
