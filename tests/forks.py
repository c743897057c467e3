"""Agents of one call that have to do with each other, and how they end."""

from collections.abc import Mapping

from harness import GIVE_UP_S, Lead


async def outcomes(lead: Lead, ids: list[str]) -> dict[str, str]:
    """How each ended, and its summary."""
    answer = await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S)
    assert not answer["timed_out"]
    return {one["name"]: f"{one['state']}: {one['summary']}" for one in answer["finished"]}


async def fork(lead: Lead, *agents: Mapping[str, object], **defaults: object) -> list[str]:
    """Ids of agents with these specs."""
    return [one["id"] for one in (await lead.call("spawn_agents", agents=[*agents], **defaults))["agents"]]
