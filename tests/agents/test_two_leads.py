"""Two leads and a person in one repository, with one home and with two: no agent is lost."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from conftest import CONFIG
from forkjoin.core.paths import Home
from support.branches import commit
from support.harness import GIVE_UP_S, Lead, forkjoin, git, open_lead

EACH = 30


@pytest.fixture
def other_home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "forkjoin-of-another"
    folder.mkdir(mode=0o700)
    (folder / "config.toml").write_text(CONFIG)
    yield folder
    forkjoin(tmp_path, "daemon", "stop", "--agents", check=False, env={"FORKJOIN_HOME": str(folder)})


def work_as_a_person(repository: Path, tmp_path: Path) -> None:
    for number in range(4):
        git(
            repository, "worktree", "add", "-q", str(tmp_path / f"own-{number}"), check=False
        )  # may fail, because git itself has a race
        git(repository, "fetch", "-q", "origin")
        commit(repository, {f"own-{number}": "x"})
        git(repository, "gc", "-q")


@pytest.mark.parametrize("homes", [1, 2])
async def test_two_leads_and_a_person_lose_no_work_of_each_other(
    repository: Path, home: Home, other_home: Path, tmp_path: Path, homes: int
) -> None:
    git(repository, "clone", "-q", "--bare", ".", str(tmp_path / "origin.git"))
    git(repository, "remote", "add", "origin", str(tmp_path / "origin.git"))
    base = git(repository, "rev-parse", "HEAD")
    found: list[dict[str, str]] = []

    async def spawn(lead: Lead, prefix: str) -> None:
        agents = [{"name": f"{prefix}-{n}"} for n in range(EACH)]
        task = "echo $FORKJOIN_NAME > $FORKJOIN_NAME.txt"
        answer = await lead.call("spawn_agents", agents=agents, task=task, base=base)
        ids = [agent["id"] for agent in answer["agents"]]
        ended = await lead.call("wait_agents", ids=ids, timeout_s=3 * GIVE_UP_S)
        assert [agent for agent in ended["finished"] if agent["state"] != "succeeded"] == []
        assert len(ended["finished"]) == EACH
        found.extend((await lead.call("list_agents", ids=ids))["agents"])

    env = {"FORKJOIN_HOME": str(other_home)} if homes == 2 else {}
    async with (
        open_lead(repository, "one") as one,
        open_lead(repository, "two", **env) as two,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(to_thread.run_sync, work_as_a_person, repository, tmp_path)
        tasks.start_soon(spawn, one, "one")
        tasks.start_soon(spawn, two, "two")
    branches = git(repository, "for-each-ref", "--format=%(refname:short)", "refs/heads/forkjoin").splitlines()
    assert sorted(branches) == sorted(agent["branch"] for agent in found)
    assert len(branches) == 2 * EACH
    for branch in branches:
        name = branch.partition("-")[2]
        assert git(repository, "diff", "--name-only", f"{base}...{branch}") == f"{name}.txt"
    listed = git(repository, "worktree", "list", "--porcelain").splitlines()
    ours = [
        line.removeprefix("branch refs/heads/") for line in listed if line.startswith("branch refs/heads/forkjoin/")
    ]
    assert sorted(ours) == sorted(branches)
    assert git(repository, "rev-list", "--count", f"{base}..main") == "4"
    assert git(repository, "fsck") == ""
