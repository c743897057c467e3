"""Pages of logs and diffs: no character, line or secret is cut in two, and nothing is lost."""

from pathlib import Path

from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, Lead, open_lead

KEY = "correct-horse-battery"


async def test_agents_that_were_named_are_listed_in_pages_in_their_order(any_lead: Lead) -> None:
    ids = await any_lead.run("true", "true", "true")
    wanted = [ids[1], ids[0], ids[2]]
    first = await any_lead.call("list_agents", ids=wanted, limit=2)
    second = await any_lead.call("list_agents", ids=wanted, limit=2, cursor=first["cursor"])
    assert [agent["id"] for agent in (*first["agents"], *second["agents"])] == wanted
    assert "cursor" not in second


async def test_the_tail_of_a_log_is_its_end_however_much_room_its_characters_take(any_lead: Lead) -> None:
    (first,) = await any_lead.run("yes \"$(printf '\\001%.0s' $(seq 40))\" | head -n 2000; echo last")
    tail = await any_lead.call("read_log", id=first, tail=500, limit=48_000)
    assert tail.endswith("\nlast\n[end]")


async def test_a_tail_and_a_last_line_contain_no_part_of_a_secret(repository: Path, home: Home) -> None:
    hold = f"until test -e {home.state}/go; do sleep 0.02; done"
    tasks = f'printf "%0100d " 0; printf %s "$MY_PASSWORD"; {hold}', f'printf "$MY_PASSWORD %0189d" 0; {hold}'
    async with open_lead(repository, MY_PASSWORD=KEY) as lead:
        behind, before = await lead.spawn(*tasks)
        for agent in (behind, before):
            assert "correct" not in await lead.last_event(agent, "000")
        tail = await lead.call("read_log", id=before, tail=1, limit=200)
        assert ("battery" in tail, "0" * 189 in tail) == (False, True)
        (home.state / "go").touch()
        await lead.call("wait_agents", timeout_s=GIVE_UP_S)


async def test_a_page_cuts_no_character_in_two(any_lead: Lead) -> None:
    (first,) = await any_lead.run("printf x; yes é | head -n 500 | tr -d '\\n'; yes é | head -n 500 | tr -d '\\n' > f")
    for tool in ("read_log", "read_diff"):
        for limit in (200, 201, 202, 203):
            assert "\ufffd" not in await any_lead.call(tool, id=first, limit=limit)
