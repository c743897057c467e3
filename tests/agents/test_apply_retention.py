"""Retention: merged agents are removed after some days, unmerged work never, and a wrong clock has no effect."""

import gc
import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from forkjoin.agents.apply_retention import apply_retention
from forkjoin.app import open_reconciler
from forkjoin.authentication import authenticate
from forkjoin.core.lead_environments import LeadEnvironments
from forkjoin.core.merge_job import MergeJobState
from forkjoin.core.model import Agent
from forkjoin.core.paths import Home
from forkjoin.core.session import Call, Hello, Session
from forkjoin.reconciler import Reconciler
from forkjoin.store.rows import NewMergeJob
from forkjoin.version import PROTOCOL
from support.harness import git, lead_of, open_lead_in_memory, open_reconciler_in_memory

FIRST = date(2030, 1, 1)


async def _see_days(reconciler: Reconciler, count: int, start: date = FIRST) -> None:
    """Apply retention on this number of consecutive days."""
    for n in range(count):
        await apply_retention(reconciler.services, start + timedelta(days=n), [])


async def _known(reconciler: Reconciler) -> set[str]:
    return {f"a{number}" for number in (await reconciler.store.restored_agents.known_numbers())[1]}


@pytest.fixture
async def ended(repository: Path, home: Home) -> None:
    """Ended agents: a1 is merged, a2 isn't, a3 changed nothing, a4 failed with work."""
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("echo 1 > 1.txt", "echo 2 > 2.txt", "true", "echo 4 > 4.txt; exit 1")
        await lead.call("merge_worktree", ids=["a1"])


async def test_merged_and_unchanged_agents_are_removed_after_thirty_days(
    repository: Path, home: Home, ended: None
) -> None:
    async with open_reconciler(home) as reconciler:
        await _see_days(reconciler, 30)
        assert await _known(reconciler) == {"a1", "a2", "a3", "a4"}
        await _see_days(reconciler, 1, FIRST + timedelta(days=30))
        assert await _known(reconciler) == {"a2", "a4"}
        assert {folder.name.partition("-")[0] for folder in home.attempts.iterdir()} == {"a2", "a4"}
        (worktrees,) = home.worktrees.iterdir()
        assert {folder.name.partition("-")[0] for folder in worktrees.iterdir()} == {"a2", "a4"}
        branches = git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/forkjoin").split()
        assert [branch.split("/")[1][:2] for branch in branches] == ["a2", "a4"]
        assert reconciler.store.database.connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert git(repository, "show", "main:1.txt") == "1"
    async with open_lead_in_memory(home, repository) as lead:
        assert await lead.spawn("true") == ["a5"]


async def test_a_clock_that_jumps_removes_nothing(home: Home, ended: None) -> None:
    async with open_reconciler(home) as reconciler:
        await _see_days(reconciler, 2)
        await _see_days(reconciler, 2, FIRST + timedelta(days=600))
        await _see_days(reconciler, 2, FIRST - timedelta(days=600))
        for _ in range(40):
            await apply_retention(reconciler.services, FIRST, [])
        assert await _known(reconciler) == {"a1", "a2", "a3", "a4"}


async def test_a_merged_agent_is_kept_while_another_merge_of_it_waits(home: Home, ended: None) -> None:
    landing = NewMergeJob(1, "gone", (1,), "refs/heads/main", "true", dry_run=False, environment="lost")
    async with open_reconciler(home) as reconciler:
        waits = await reconciler.store.merges.add(landing, Call("", ""))
        await _see_days(reconciler, 40)
        assert await _known(reconciler) == {"a1", "a2", "a4"}
        await reconciler.store.merges.set_state(waits, MergeJobState.DONE)
        await _see_days(reconciler, 1, FIRST + timedelta(days=40))
        assert await _known(reconciler) == {"a2", "a4"}


async def test_a_dependency_is_kept_until_its_dependent_has_ended(repository: Path, home: Home, ended: None) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (long,) = await lead.spawn("sleep 1000")
        await lead.spawn("true", after=["a1", long])
        await _see_days(reconciler, 40)
        assert await _known(reconciler) == {"a1", "a2", "a4", "a5", "a6"}
        await lead.results(*(agent["id"] for agent in (await lead.call("stop_agents", ids=[long]))["agents"]), "a6")
        await _see_days(reconciler, 1, FIRST + timedelta(days=40))
        assert await _known(reconciler) == {"a2", "a4", "a5", "a6"}


async def test_with_zero_days_nothing_is_ever_removed(home: Home, ended: None) -> None:
    home.config_file.write_text(f"{home.config_file.read_text()}\n[retention]\ndays = 0\n")
    async with open_reconciler(home) as reconciler:
        await _see_days(reconciler, 40)
        assert await _known(reconciler) == {"a1", "a2", "a3", "a4"}


@pytest.mark.parametrize("work", ["a file", "an edit", "a commit"])
async def test_a_merged_agent_with_new_changes_in_its_worktree_is_kept(
    repository: Path, home: Home, ended: None, work: str
) -> None:
    (worktree,) = home.worktrees.glob("*/a1-*")
    (worktree / ("README.md" if work == "an edit" else "new.txt")).write_text("mine\n")
    if work == "a commit":
        git(worktree, "add", ".")
        git(worktree, "commit", "-q", "-m", "mine")
    async with open_reconciler(home) as reconciler:
        await _see_days(reconciler, 35)
        assert await _known(reconciler) == {"a1", "a2", "a4"}
    assert (worktree / ("README.md" if work == "an edit" else "new.txt")).read_text() == "mine\n"


async def test_a_merged_agent_is_kept_while_a_nested_repository_has_work(
    home: Home, ended: None, caplog: pytest.LogCaptureFixture
) -> None:
    (worktree,) = home.worktrees.glob("*/a1-*")
    git(worktree, "worktree", "add", "-q", "--detach", "inner")
    (worktree / "inner" / "new").write_text("x")
    common = Path(git(worktree, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    (common / "info" / "exclude").write_text("inner\n")
    with caplog.at_level("INFO", "forkjoin.agents.apply_retention"):
        async with open_reconciler(home) as reconciler:
            await _see_days(reconciler, 35)
            assert await _known(reconciler) == {"a1", "a2", "a4"}
    assert "inner (1 uncommitted path)" in caplog.text


async def test_an_agent_that_cant_be_removed_delays_no_other(
    home: Home, ended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler(home) as reconciler:
        await _see_days(reconciler, 30)
        with monkeypatch.context() as patched:
            forget = reconciler.store.retention.delete_agent

            async def forget_but_one(number: int) -> None:
                if number == 1:
                    raise OSError("killed")
                await forget(number)

            patched.setattr(reconciler.store.retention, "delete_agent", forget_but_one)
            await apply_retention(reconciler.services, FIRST + timedelta(days=30), [])
        assert await _known(reconciler) == {"a1", "a2", "a4"}  # a record is deleted after the worktree and the logs
        await apply_retention(reconciler.services, FIRST + timedelta(days=30), [])
        assert await _known(reconciler) == {"a2", "a4"}


async def test_an_attempt_folder_without_a_record_is_deleted_unless_it_may_be_restored(home: Home, ended: None) -> None:
    async with open_reconciler(home) as reconciler:
        await reconciler.store.retention.delete_agent(3)
        for handle in ("t7-3-0123456789abcdef", "a99-1"):
            (home.attempts / handle).mkdir()
        copy = home.records.with_name("records.sqlite.damaged-20300101T000000Z")
        copy.touch()
        await apply_retention(reconciler.services, FIRST, [])
        assert (home.attempts / "a3-1").exists()
        copy.unlink()
        await apply_retention(reconciler.services, FIRST, [])
        left = {folder.name for folder in home.attempts.iterdir()}
        assert left == {"a1-1", "a2-1", "a4-1", "a99-1"}


async def test_recorded_answers_that_cant_be_requested_any_more_are_deleted(home: Home, ended: None) -> None:
    async with open_reconciler(home) as reconciler:
        call = Call(
            "memory-session-1-relay",
            reconciler.store.database.connection.execute("SELECT request FROM call").fetchone()["request"],
        )
        await reconciler.store.agents.set_told(1, "session-1", [(1, 1), (3, 1)])
        await _see_days(reconciler, 40)
        rows = reconciler.store.database.connection.execute("SELECT agent FROM told").fetchall()
        assert [row["agent"] for row in rows] == [2, 4]
        assert await reconciler.store.calls.answer_to(call) is None


async def test_recorded_answers_to_a_connected_relay_are_kept(home: Home, ended: None) -> None:
    async with open_reconciler(home) as reconciler:
        call = Call(
            "memory-session-1-relay",
            reconciler.store.database.connection.execute("SELECT request FROM call").fetchone()["request"],
        )
        for n in range(40):
            await apply_retention(
                reconciler.services, FIRST + timedelta(days=n), [_session("memory-session-1-relay", {})]
            )
        assert await reconciler.store.calls.answer_to(call) is not None


def _session(relay: str, environment: dict[str, str]) -> Session:
    return Session(Hello(protocol=PROTOCOL, version="0", kind="relay", relay=relay, cwd="/", environment=environment))


def test_an_environment_is_kept_while_it_may_be_needed() -> None:
    environments = LeadEnvironments()
    digests = [environments.add({"WHOSE": whose}) for whose in ("agent's", "lent", "connected", "nobody's")]
    agents, lent, connected, nobodys = digests
    environments.set_current(1, "lead", lent)
    environments.set_current(1, "gone", nobodys)
    environments.prune(environments.digests, [(agents, 1, "lead")], [{"WHOSE": "connected"}])
    assert environments.find(agents, 1, "lead") == {"WHOSE": "agent's"}
    assert environments.find("lost", 1, "lead") == {"WHOSE": "lent"}
    assert environments.find(connected, 2, "") == {"WHOSE": "connected"}
    assert environments.find(nobodys, 1, "gone") is None


async def test_the_environment_of_a_session_that_connects_during_retention_is_kept(
    home: Home, ended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler(home) as reconciler:
        old = reconciler.services.environments.add({"WHOSE": "nobody's"})
        brought: list[str] = []
        settled = reconciler.store.retention.settled_agents

        async def come_meanwhile(day: int) -> list[Agent]:
            brought.append(reconciler.services.environments.add({"WHOSE": "a new lead's"}))
            reconciler.services.environments.set_current(1, "new", brought[0])
            return await settled(day)

        monkeypatch.setattr(reconciler.store.retention, "settled_agents", come_meanwhile)
        await apply_retention(reconciler.services, FIRST, [])
        assert reconciler.services.environments.find("lost", 1, "new") == {"WHOSE": "a new lead's"}
        assert reconciler.services.environments.find(brought[0], 2, "") == {"WHOSE": "a new lead's"}
        assert reconciler.services.environments.find(old, 2, "") is None


async def test_the_daemon_tidies_at_its_start_and_knows_who_is_connected(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("true")
    async with open_reconciler(home) as reconciler:
        assert reconciler.store.database.connection.execute("SELECT count(*) AS days FROM day").fetchone() == {
            "days": 1
        }
        session = _session("x", dict(os.environ))
        await authenticate(reconciler.services, session)
        assert list(reconciler.services.project_sessions) == [session]
        del session
        gc.collect()
        assert list(reconciler.services.project_sessions) == []
