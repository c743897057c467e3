"""Helpers that spawn agents with dependencies in one call, and read the outcomes."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import pytest
from forkjoin.agents import base_commit
from support.harness import GIVE_UP_S, Lead


async def outcomes(lead: Lead, ids: list[str]) -> dict[str, str]:
    """Wait until the agents have ended. Return "state: summary" for each agent's name."""
    answer = await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S)
    assert not answer["timed_out"]
    return {agent["name"]: f"{agent['state']}: {agent['summary']}" for agent in answer["finished"]}


async def fork(lead: Lead, *agents: Mapping[str, object], **defaults: object) -> list[str]:
    """Spawn agents with these specs in one call, and return their ids."""
    answer = await lead.call("spawn_agents", agents=[*agents], **defaults)
    return [agent["id"] for agent in answer["agents"]]


@contextmanager
def falling_once_settled(monkeypatch: pytest.MonkeyPatch) -> Generator[list[str]]:
    """Make every preparation fail after its base was determined, as on a full disk.

    Yields:
        The list of the bases that were determined so far.
    """
    determine_base, bases = base_commit.determine_base, list[str]()

    async def determine_and_fail(*arguments: object) -> None:
        bases.append((await determine_base(*arguments)).worktree.base)  # type: ignore[arg-type]
        raise OSError(28, "No space left on device")  # forkjoin retries after a temporary error such as this one

    with monkeypatch.context() as fault:
        fault.setattr("forkjoin.agents.prepare.determine_base", determine_and_fail)
        yield bases
