"""Damaged records and other damaged files (fault 18): agents are restored from the files of attempts."""

import json
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from forkjoin.app import _end_when_damaged, open_reconciler
from forkjoin.core import file_lock
from forkjoin.core.agent_spec import SpecParts
from forkjoin.core.error import CallerError
from forkjoin.core.model import Pause, PauseKind, PauseReason, State
from forkjoin.core.paths import Home
from forkjoin.core.settings import read_settings
from forkjoin.store.damage_detection import set_aside_copies
from forkjoin.store.rows import RESTORED
from support.about_files import write_about
from support.harness import (
    GIVE_UP_S,
    Lead,
    git,
    lead_of,
    let_pass,
    open_lead_in_memory,
    open_reconciler_in_memory,
    until,
)
from support.records import DAMAGES, damage


async def _listed(lead: Lead) -> dict[str, dict[str, Any]]:
    return {agent["id"]: agent for agent in (await lead.call("list_agents", all=True))["agents"]}


def _waits(home: Home) -> str:
    return f"until test -e {home.state}/go; do sleep 0.02; done; echo x > x.txt; echo told"


class Left:
    """The state that a daemon left. No other daemon takes over before `taken_over`."""

    def __init__(self, home: Home, repository: Path, agents: dict[str, dict[str, Any]]) -> None:
        self.agents = agents
        self._home, self._repository = home, repository
        self._lock = file_lock.take(home.daemon_lock)  # otherwise a shim would start a daemon
        assert self._lock is not None

    @asynccontextmanager
    async def taken_over(self) -> AsyncGenerator[Lead]:
        assert self._lock is not None
        os.close(self._lock)
        async with open_lead_in_memory(self._home, self._repository) as lead:
            yield lead
        self._lock = file_lock.take(self._home.daemon_lock)

    def close(self) -> None:
        assert self._lock is not None
        os.close(self._lock)


@pytest.fixture
async def left(repository: Path, home: Home) -> AsyncIterator[Left]:
    """Four agents: a1 ended with work, a2 runs, a3 was removed, a4 was lost."""
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("echo one > one.txt; echo first")
        await lead.spawn(_waits(home))
        await lead.until("a2", state="running")
        await lead.run("true")
        await lead.call("remove_worktrees", ids=["a3"])
        await lead.spawn(f"echo four > four.txt; echo up > {home.state}/up; exec sleep 1000")
        await until((home.state / "up").exists)
        agents = await _listed(lead)
    for agent in agents.values():
        write_about(home, repository, agent)
    found = Left(home, repository, agents)
    _kill_attempt(home, "a4-1")
    yield found
    found.close()


def _kill_attempt(home: Home, handle: str) -> None:
    """Kill an attempt's shim and its program, as when the machine crashes."""
    folder = str(home.attempts / handle).encode()
    for entry in Path("/proc").iterdir():
        try:
            ours = (
                entry.name.isdigit() and folder in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            )
            if ours and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
    while file_lock.is_held(home.attempts / handle / "lock"):
        pass


@pytest.mark.parametrize("how", [*DAMAGES, "gone"])
async def test_agents_are_restored_in_their_present_state(repository: Path, home: Home, left: Left, how: str) -> None:
    if how == "gone":
        home.records.unlink()
    else:
        damage(home.records, how)
    async with left.taken_over() as lead:
        await lead.until("a1", state="succeeded")
        await lead.until("a4", state="lost")
        now = await _listed(lead)
        assert {id_: (agent["name"], agent["branch"]) for id_, agent in now.items()} == {
            id_: (agent["name"], agent["branch"]) for id_, agent in left.agents.items()
        }
        (line,) = [line for line in (await lead.call("get_status"))["trouble"] if "damaged" in line]
        assert str(set_aside_copies(home.records)[-1]) in line
        (home.state / "go").touch()
        await lead.until("a2", state="succeeded")
        for agent, files in (("a1", 1), ("a2", 1), ("a4", 1)):
            result = await lead.call("get_result", id=agent)
            assert result["files_changed"] == files
            assert how == "halved" or RESTORED in result["warnings"]  # some rows of a halved database can be read
        assert "a3" not in {agent["id"] for agent in (await lead.call("list_agents"))["agents"]}
        merged = await lead.call("merge_worktree", ids=["a1", "a2"])
        assert [agent["id"] for agent in merged["merged"]] == ["a1", "a2"]
        assert git(repository, "show", "main:one.txt") == "one"
        await lead.call("remove_worktrees", ids=["a4"], discard_unmerged=True)
        assert await lead.spawn("true") == ["a5"]
        for copy in set_aside_copies(home.records):
            copy.unlink()
        assert not [line for line in (await lead.call("get_status"))["trouble"] if "damaged" in line]


async def test_a_restored_agent_that_was_ended_for_an_unknown_reason_counts_as_stopped(home: Home, left: Left) -> None:
    (home.attempts / "a4-1" / "cancel").touch()
    home.records.unlink()
    async with left.taken_over() as lead:
        await lead.until("a4", state="stopped")
        (home.state / "go").touch()
        await lead.until("a2", state="succeeded")


async def test_a_restored_paused_agent_continues_and_a_restored_stopped_agent_stays_stopped(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = f"echo x >> {home.state}/ran; [ $(wc -l < {home.state}/ran) = 1 ] && sleep 1000; echo went on"
    pause = Pause(PauseReason.BUDGET, "its budget is spent", PauseKind.ENDING, time.time() + 1000)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.spawn(task)
        await until((home.state / "ran").exists)
        await lead.spawn("sleep 1000")
        for id_ in ("a1", "a2"):
            await lead.until(id_, state="running")
        await reconciler.store.lifecycle.move(await reconciler.store.agents.get(1), State.PAUSED, pause=pause)
        await lead.call("stop_agents", ids=["a2"])
        await until(lambda: not file_lock.is_held(home.attempts / "a1-1" / "lock"))
    home.records.unlink()
    async with open_reconciler(home) as reconciler:
        assert [(await reconciler.store.agents.get(number)).state for number in (1, 2)] == [State.PAUSED, State.RUNNING]
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        assert "its budget is spent" in await lead.last_event("a1", "its budget is spent")
        await lead.until("a2", state="stopped")
        assert (await lead.listed("a1"))["state"] == "paused"
        let_pass(reconciler, monkeypatch, 2000)
        (result,) = await lead.results("a1")
    assert (result["state"], result["output"].strip()) == ("succeeded", "went on")


async def test_a_restored_agent_is_not_restored_again(repository: Path, home: Home, left: Left) -> None:
    home.records.unlink()
    async with left.taken_over() as lead:
        await lead.until("a1", state="succeeded")
        await lead.call("stop_agents", ids=["a2"])
        await lead.until("a4", state="lost")
        before = await _listed(lead)
    async with left.taken_over() as lead:
        assert await _listed(lead) == before


async def test_a_missing_record_is_restored_only_while_damage_may_have_taken_it(home: Home, left: Left) -> None:
    async with open_reconciler(home) as reconciler:
        await reconciler.store.retention.delete_agent(1)
    async with open_reconciler(home) as reconciler:
        assert (await reconciler.store.restored_agents.known_numbers()) == (4, {2, 3, 4})
    home.records.with_name("records.sqlite.damaged-20300101T000000Z").touch()
    async with open_reconciler(home) as reconciler:
        assert (await reconciler.store.restored_agents.known_numbers()) == (4, {1, 2, 3, 4})
        assert (await reconciler.store.agents.get(1)).history.restored
        assert await reconciler.store.agents.task(1) == "the task"
        await reconciler.store.lifecycle.ask_stop([await reconciler.store.agents.get(2)])
    async with left.taken_over() as lead:
        await lead.call("stop_agents", ids=["a2"])


async def test_an_agent_with_an_invalid_spec_is_restored_without_it(home: Home, left: Left) -> None:
    about = home.attempts / "a1-1" / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "spec": {"priority": "high", "task": "a task"}}))
    home.records.unlink()
    async with open_reconciler(home) as reconciler:
        assert (await reconciler.store.agents.get(1)).spec == SpecParts()
        assert "unknown" in await reconciler.store.agents.task(1)
    async with left.taken_over() as lead:
        await lead.call("stop_agents", ids=["a2"])


async def test_the_files_to_restore_an_agent_are_synced_before_its_program_starts(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, synced = os.fdatasync, set[str]()

    def sync(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        really(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("true")
    assert {str(home.attempts / "a1-1" / name) for name in ("about.json", "input")} <= synced


@pytest.mark.parametrize("seen", ["attempts/a9-1", "worktrees/repository-0/a9-name"])
async def test_an_agent_number_found_on_disk_is_not_assigned_again(repository: Path, home: Home, seen: str) -> None:
    (home.state / seen).mkdir(parents=True)
    async with open_lead_in_memory(home, repository) as lead:
        assert await lead.run("true") == ["a10"]
        assert "damaged" in " ".join((await lead.call("get_status"))["trouble"])


async def test_a_daemon_with_damaged_records_ends_and_the_next_daemon_sets_them_aside(
    repository: Path, home: Home, left: Left
) -> None:
    async with open_reconciler(home) as reconciler:
        with anyio.fail_after(GIVE_UP_S), anyio.CancelScope() as scope:
            reconciler.store.database.damaged.set()
            await _end_when_damaged(reconciler, scope)
            await anyio.sleep_forever()
    async with left.taken_over() as lead:
        assert len(set_aside_copies(home.records)) == 1
        assert set(await _listed(lead)) == {"a1", "a2", "a3", "a4"}
        await lead.call("stop_agents", ids=["a2"])
    async with left.taken_over():
        assert len(set_aside_copies(home.records)) == 1


@pytest.mark.parametrize("how", DAMAGES)
async def test_an_ended_agent_survives_damaged_attempt_files(
    repository: Path, home: Home, left: Left, how: str
) -> None:
    for file in (home.attempts / "a1-1").iterdir():
        if file.is_file():
            damage(file, how)
    damage(home.daemon_lock, how)
    async with left.taken_over() as lead:
        assert (await lead.call("get_result", id="a1"))["output"].strip() == "first"
        (home.state / "go").touch()
        await lead.until("a2", state="succeeded")


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_running_agent_survives_damaged_attempt_files(
    repository: Path, home: Home, left: Left, how: str
) -> None:
    for name in ("spec.json", "started.json", "input", "lock", "about.json", "full.json"):
        damage(home.attempts / "a2-1" / name, how)
    async with left.taken_over() as lead:
        (home.state / "go").touch()
        await lead.until("a2", state="succeeded")
        assert (await lead.call("get_result", id="a2"))["output"].strip() == "told"


@pytest.mark.parametrize("how", DAMAGES)
async def test_an_end_that_cannot_be_read_is_never_a_success(
    repository: Path, home: Home, left: Left, how: str
) -> None:
    (home.state / "go").touch()
    await until(lambda: not file_lock.is_held(home.attempts / "a2-1" / "lock"))
    damage(home.attempts / "a2-1" / "end.json", how)
    async with left.taken_over() as lead:
        await lead.until("a2", state="lost")
        assert (await lead.call("get_result", id="a2"))["files_changed"] == 1


@pytest.mark.parametrize("how", ["halved", "random"])
def test_damaged_settings_are_refused_with_a_message(home: Home, how: str) -> None:
    home.config_file.write_text('default_agent = "sh"')
    damage(home.config_file, how)
    with pytest.raises(CallerError, match=r"config\.toml"):
        read_settings(home.config_file)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_lock_works_whatever_its_file_contains(home: Home, how: str) -> None:
    home.daemon_lock.write_bytes(b"0123456789")
    damage(home.daemon_lock, how)
    held = file_lock.take(home.daemon_lock)
    assert held is not None
    assert file_lock.is_held(home.daemon_lock)
    os.close(held)
