"""Pages of logs and diffs: no character, line or secret is cut in two, and nothing is lost."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.harness import GIVE_UP_S, Lead, lead_of

KEY = "correct-horse-battery"


async def test_agents_that_were_named_are_listed_in_pages_in_their_order(near_lead: Lead) -> None:
    ids = await near_lead.run("true", "true", "true")
    wanted = [ids[1], ids[0], ids[2]]
    first = await near_lead.call("list_agents", ids=wanted, limit=2)
    second = await near_lead.call("list_agents", ids=wanted, limit=2, cursor=first["cursor"])
    assert [agent["id"] for agent in (*first["agents"], *second["agents"])] == wanted
    assert "cursor" not in second


async def test_the_tail_of_a_log_is_its_end_however_much_room_its_characters_take(near_lead: Lead) -> None:
    (first,) = await near_lead.run("yes \"$(printf '\\001%.0s' $(seq 40))\" | head -n 2000; echo last")
    tail = await near_lead.call("read_log", id=first, tail=500, limit=48_000)
    assert tail.endswith("\nlast\n[end]")


async def test_a_tail_and_a_last_line_contain_no_part_of_a_secret(
    repository: Path, in_process_reconciler: Reconciler, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_PASSWORD", KEY)
    hold = f"until test -e {home.state}/go; do sleep 0.02; done"
    tasks = f'printf "%0100d " 0; printf %s "$MY_PASSWORD"; {hold}', f'printf "$MY_PASSWORD %0189d" 0; {hold}'
    async with lead_of(in_process_reconciler, repository) as lead:
        behind, before = await lead.spawn(*tasks)
        for agent in (behind, before):
            assert "correct" not in await lead.last_event(agent, "000")
        tail = await lead.call("read_log", id=before, tail=1, limit=200)
        assert ("battery" in tail, "0" * 189 in tail) == (False, True)
        (home.state / "go").touch()
        await lead.call("wait_agents", timeout_s=GIVE_UP_S)


async def test_a_page_cuts_no_character_in_two(near_lead: Lead) -> None:
    (first,) = await near_lead.run("printf x; yes é | head -n 500 | tr -d '\\n'; yes é | head -n 500 | tr -d '\\n' > f")
    for tool in ("read_log", "read_diff"):
        for limit in (200, 201, 202, 203):
            assert "\ufffd" not in await near_lead.call(tool, id=first, limit=limit)
