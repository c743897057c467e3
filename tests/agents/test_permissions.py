"""Permissions of agents, from their spec and from the settings."""

from pathlib import Path
from typing import Any

import pytest
from forkjoin.agents.stop import stop
from forkjoin.core.paths import Home
from support.harness import Lead, lead_of, open_lead_in_memory, open_reconciler_in_memory, program_of

ECHO = "succeed(' '.join(sys.argv))"


async def test_permissions_for_a_command_are_refused(talking: Lead) -> None:
    refused: tuple[dict[str, list[str]], ...] = ({"allow": []}, {"deny": ["WebFetch"]})
    for given in refused:
        why = await talking.refusal("spawn_agent", task="true", permissions=given)
        assert "sh can't be given permissions, since a command asks for none" in why
    assert (await talking.call("list_agents", all=True))["agents"] == []


@pytest.mark.parametrize("given", [{"allow": ["rm -rf"]}, {"deny": "Bash"}, {"ask": ["Bash"]}, ["Bash"]])
async def test_invalid_permissions_are_refused(talking: Lead, given: Any) -> None:
    assert "permissions" in await talking.refusal("spawn_agent", task="true", agent="talker", permissions=given)


async def test_permissions_of_the_spec_override_the_settings(talkers: None, repository: Path, home: Home) -> None:
    settings = '[permissions]\nallow = ["Read"]\ndeny = ["Bash(rm:*)"]\n'
    home.config_file.write_text(home.config_file.read_text() + settings)
    async with open_lead_in_memory(home, repository) as lead:
        own = {"allow": ["WebFetch"], "deny": ["WebSearch"]}
        tasks = [{"task": ECHO, "permissions": own, "agent": "talker"}, {"task": ECHO, "agent": "talker"}]
        spawned = await lead.call("spawn_agents", agents=[*tasks, {"task": "echo done"}])
        first, second, third = await lead.results(*(agent["id"] for agent in spawned["agents"]))
    assert '"allow": ["WebFetch", "mcp__forkjoin"]' in first["output"]
    assert '"Bash(rm:*)", "WebSearch"]' in first["output"]
    assert '"allow": ["Read", "mcp__forkjoin"]' in second["output"]
    assert third["state"] == "succeeded"


async def test_a_note_says_that_only_deny_has_an_effect_if_permissions_are_skipped(
    talkers: None, repository: Path, home: Home
) -> None:
    config = home.config_file.read_text()
    home.config_file.write_text(config.replace("[agents.talker]", "[agents.talker]\nskip_permissions = true"))
    async with open_lead_in_memory(home, repository) as lead:
        answer = await lead.call("spawn_agent", task=ECHO, agent="talker", permissions={"allow": ["Read"]})
        assert "only `deny` has an effect" in answer["note"]
        assert "note" not in await lead.call("spawn_agent", task=ECHO, agent="talker", permissions={"deny": ["Read"]})
        await lead.results("a1", "a2")


async def test_an_agent_older_than_the_permission_settings_cant_spawn(
    talkers: None, repository: Path, home: Home
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.call("spawn_agent", task="until test -e go; do sleep 0.05; done", nesting={"agents": 3})
        await lead.until("a1", state="running")
    home.config_file.write_text(f"{home.config_file.read_text()}[permissions]\nallow = []\n")
    async with open_reconciler_in_memory(home) as reconciler:
        for given in ({"agent": "talker", "permissions": {"allow": ["Bash"]}}, {}):
            async with program_of(reconciler, "a1") as parent:
                assert "so it can't spawn any" in await parent.refusal("spawn_agent", task="true", **given)
        await stop(reconciler.services, await reconciler.store.agents.live())


async def test_an_agent_with_limited_permissions_cant_get_nesting(talkers: None, repository: Path, home: Home) -> None:
    limited: dict[str, Any] = {"task": ECHO, "agent": "talker", "permissions": {"deny": ["WebFetch"]}}
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        refused = await lead.refusal("spawn_agent", **limited, nesting={"agents": 1})
        assert "nesting and permissions" in refused
        assert (await lead.call("list_agents", all=True))["agents"] == []
        await lead.call("spawn_agent", task="until test -e go; do sleep 0.05; done", nesting={"agents": 3, "depth": 2})
        await lead.until("a1", state="running")
        async with program_of(reconciler, "a1") as parent:
            assert await parent.refusal("spawn_agent", **limited, nesting={"agents": 1}) == refused
            await parent.call("spawn_agent", **limited)
        (limited_child,) = await lead.results("a2")
        await stop(reconciler.services, await reconciler.store.agents.live())
    assert "WebFetch" in limited_child["output"]
    home.config_file.write_text(f'{home.config_file.read_text()}[permissions]\ndeny = ["WebFetch"]\n')
    async with open_lead_in_memory(home, repository) as lead:
        assert await lead.refusal("spawn_agent", task="true", nesting={"agents": 1}) == refused
