"""Fault 17: the disk of the records is full or read-only while agents run and end."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from forkjoin.core.paths import Home
from forkjoin.store.damage_detection import find_damage
from support.harness import (
    GIVE_UP_S,
    Lead,
    ToolRefusedError,
    first_answer,
    forkjoin,
    lead_of,
    open_lead,
    open_reconciler_in_memory,
)
from support.small_disk import fill, small_disk


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes, mounted at the path of the home."""
    with small_disk(tmp_path / "forkjoin", 4) as folder:
        yield folder


@pytest.fixture
def roomy(small: Path, tmp_path: Path, home: Home) -> Iterator[Home]:
    """A home on that disk, with attempts and worktrees on another disk."""
    for name in ("attempts", "worktrees"):
        (tmp_path / name).mkdir(mode=0o700)
        subprocess.run(["mount", "--bind", str(tmp_path / name), str(small / name)], check=True)
    yield home
    for name in ("attempts", "worktrees"):
        subprocess.run(["umount", "--lazy", str(small / name)], check=True)


async def _until_refused(lead: Lead) -> str:
    """Spawn agents until SQLite's log is full too, and return the refusal."""
    with anyio.fail_after(GIVE_UP_S):
        while True:
            try:
                await lead.call("spawn_agent", task=f"true; : {'x' * 100_000}")
            except ToolRefusedError as error:
                return str(error)


async def _until_reported(lead: Lead, agent: str) -> None:
    async def is_reported() -> bool:
        return agent in " ".join((await lead.call("get_status"))["trouble"])

    await first_answer(is_reported)


async def test_on_a_full_disk_spawns_are_refused_and_running_agents_continue(
    roomy: Home, repository: Path, tmp_path: Path
) -> None:
    wait = f"until test -e {tmp_path}/go; do sleep 0.02; done; echo x > x.txt; echo told"
    async with open_lead(repository) as lead:
        (first,) = await lead.spawn(wait)
        await lead.until(first, state="running")
        filler = fill(roomy.state)
        refusal = await _until_refused(lead)
        assert "the disk that they are on is full; free space there" in refusal
        listed = {agent["id"] for agent in (await lead.call("list_agents", limit=200))["agents"]}
        (tmp_path / "go").touch()
        await _until_reported(lead, first)
        # The agent's end is not recorded yet, and does not count as a failure.
        assert (await lead.listed(first))["state"] == "running"
        trouble = "\n".join((await lead.call("get_status"))["trouble"])
        assert "MB are free on the disk" in trouble
        filler.unlink()
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [(one["state"], one["summary"]) for one in ended["finished"]] == [("succeeded", "told")]
        await lead.run("true")
        assert listed < {agent["id"] for agent in (await lead.call("list_agents", limit=200))["agents"]}
    forkjoin(repository, "daemon", "stop", "--agents")
    assert find_damage(roomy.records, thorough=True) is None


async def test_a_daemon_that_starts_on_a_full_disk_loses_no_records(roomy: Home, repository: Path) -> None:
    async with open_lead(repository) as lead:
        await lead.run("echo 1 > 1.txt")
    forkjoin(repository, "daemon", "stop")
    filler = fill(roomy.state)
    done = forkjoin(repository, "ps", check=False)
    assert done.returncode in (0, 1)  # reading may succeed without free space
    assert "Traceback" not in done.stderr
    filler.unlink()
    assert "a1" in forkjoin(repository, "ps", "--json").stdout


async def test_read_only_records_are_reported_and_used_again_when_they_are_writable(
    home: Home, repository: Path
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; echo told")
        await lead.until(first, state="running")
        # SQLite then fails as with a read-only file.
        reconciler.store.database.connection.execute("PRAGMA query_only = ON")
        refusal = await lead.refusal("spawn_agent", task="true")
        assert "can only be read" in refusal
        (home.state / "go").touch()
        await _until_reported(lead, first)
        assert (await lead.listed(first))["state"] == "running"
        reconciler.store.database.connection.execute("PRAGMA query_only = OFF")
        ended = await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
        assert [(one["state"], one["summary"]) for one in ended["finished"]] == [("succeeded", "told")]
