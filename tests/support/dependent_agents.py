"""Agents of one call with dependencies, and their ends."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import pytest
from forkjoin.agents import base_commit
from support.harness import GIVE_UP_S, Lead


async def outcomes(lead: Lead, ids: list[str]) -> dict[str, str]:
    """Return each agent's state and summary by name, once all have ended."""
    answer = await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S)
    assert not answer["timed_out"]
    return {one["name"]: f"{one['state']}: {one['summary']}" for one in answer["finished"]}


async def fork(lead: Lead, *agents: Mapping[str, object], **defaults: object) -> list[str]:
    """Spawn agents with these specs, and return their ids."""
    return [one["id"] for one in (await lead.call("spawn_agents", agents=[*agents], **defaults))["agents"]]


@contextmanager
def falling_once_settled(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str]]:
    """Let preparation fail after the base was determined, as on a full disk.

    Yields the list of the bases that were determined."""
    settle, settled = base_commit.determine_base, list[str]()

    async def settle_and_fall(*arguments: object) -> None:
        settled.append((await settle(*arguments)).worktree.base)  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")  # what passes is tried again

    with monkeypatch.context() as fault:
        fault.setattr("forkjoin.agents.prepare.determine_base", settle_and_fall)
        yield settled
