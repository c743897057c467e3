"""wait_agents, list_agents and get_status."""

import json
from functools import partial
from pathlib import Path

import anyio
from forkjoin.core.paths import Home
from support.harness import (
    GIVE_UP_S,
    Lead,
    forkjoin,
    lead_of,
    limit,
    open_lead,
    open_lead_in_memory,
    open_reconciler_in_memory,
    until,
)

FOREVER = "sleep 1000"


async def test_a_wait_without_ids_reports_each_end_once(near_lead: Lead) -> None:
    await near_lead.spawn("echo one", "echo two")
    first = await near_lead.call("wait_agents", timeout_s=GIVE_UP_S)
    assert [agent["summary"] for agent in first["finished"]] == ["one", "two"]
    again = await near_lead.call("wait_agents", timeout_s=GIVE_UP_S)
    assert again == {"finished": [], "pending": [], "timed_out": False}


async def test_a_wait_with_ids_reports_an_end_again(near_lead: Lead) -> None:
    (first,) = await near_lead.run("echo one")
    again = await near_lead.call("wait_agents", ids=[first])
    assert [agent["id"] for agent in again["finished"]] == [first]


async def test_a_wait_for_any_returns_with_the_first_end(any_lead: Lead) -> None:
    slow, quick = await any_lead.spawn(FOREVER, "echo quick")
    answer = await any_lead.call("wait_agents", until="any", timeout_s=GIVE_UP_S)
    assert [agent["id"] for agent in answer["finished"]] == [quick]
    assert [agent["id"] for agent in answer["pending"]] == [slow]
    assert answer["timed_out"] is False
    await any_lead.call("stop_agents", ids=[slow])


async def test_a_wait_that_times_out_says_who_is_pending(near_lead: Lead) -> None:
    (slow,) = await near_lead.spawn(FOREVER)
    answer = await near_lead.call("wait_agents", timeout_s=0.05)
    assert answer["timed_out"] is True
    assert [agent["id"] for agent in answer["pending"]] == [slow]
    await near_lead.call("stop_agents", ids=[slow])


async def test_a_wait_that_is_cancelled_hurts_no_agent(any_lead: Lead) -> None:
    (slow,) = await any_lead.spawn(FOREVER)
    with anyio.move_on_after(0.2):
        await any_lead.call("wait_agents", timeout_s=GIVE_UP_S)
    listed = await any_lead.call("list_agents")
    assert listed["agents"][0]["state"] in ("preparing", "running")
    await any_lead.call("stop_agents", ids=[slow])


async def test_a_wait_reports_the_leads_own_agents_and_a_list_shows_all(repository: Path, home: Home) -> None:
    async with open_lead(repository, "one") as one, open_lead(repository, "two") as two:
        (mine,) = await one.run("echo mine")
        (theirs,) = await two.spawn("echo theirs")
        waited = await two.call("wait_agents", timeout_s=GIVE_UP_S)
        assert [end["id"] for end in waited["finished"]] == [theirs]
        listed = await two.call("list_agents")
        assert [agent["id"] for agent in listed["agents"]] == [theirs, mine]


async def test_ten_ended_agents_are_reported_in_under_4_kilobytes(near_lead: Lead) -> None:
    task = "printf 'x%.0s' $(seq 1 1000); echo"
    await near_lead.spawn(*[task] * 10)
    answer = await near_lead.call("wait_agents", timeout_s=GIVE_UP_S)
    assert len(answer["finished"]) == 10
    assert {len(agent["summary"]) for agent in answer["finished"]} == {240}
    assert len(json.dumps(answer, separators=(",", ":"))) < 4_000


async def test_a_list_is_paged_filtered_and_counted(near_lead: Lead) -> None:
    await near_lead.run("true", "true", "false")
    page = await near_lead.call("list_agents", limit=2)
    assert [agent["id"] for agent in page["agents"]] == ["a3", "a2"]
    assert page["counts"] == {"succeeded": 2, "failed": 1}
    rest = await near_lead.call("list_agents", limit=2, cursor=page["cursor"])
    assert [agent["id"] for agent in rest["agents"]] == ["a1"]
    assert "cursor" not in rest
    failed = await near_lead.call("list_agents", state=["failed"])
    assert [agent["id"] for agent in failed["agents"]] == ["a3"]
    named = await near_lead.call("list_agents", ids=["true-2"])
    assert [agent["id"] for agent in named["agents"]] == ["a2"]


async def test_removed_agents_are_listed_only_when_all_are_asked_for(near_lead: Lead) -> None:
    (first,) = await near_lead.run("true")
    await near_lead.call("remove_worktrees", ids=[first])
    assert (await near_lead.call("list_agents"))["agents"] == []
    listed = await near_lead.call("list_agents", all=True)
    assert [agent["id"] for agent in listed["agents"]] == [first]


async def test_a_running_commands_last_line_is_its_last_event(near_lead: Lead) -> None:
    (first,) = await near_lead.spawn(f"echo working hard; {FOREVER}")
    await near_lead.until(first, last_event="working hard")
    await near_lead.call("stop_agents", ids=[first])


async def test_the_status_says_what_runs_what_waits_and_why(repository: Path, home: Home) -> None:
    limit(home, max_running=1)
    async with open_lead(repository) as lead:
        ids = await lead.spawn(FOREVER, "true")
        await lead.until(ids[0], state="running")
        status = await lead.call("get_status")
        assert (status["running"], status["queued"], status["max_running"]) == (1, 1, 1)
        assert status["waiting"] == [f"{ids[1]}: the only slot is taken"]
        assert status["projects"] == {str(repository / ".git"): ids}
        await lead.call("stop_agents", ids=ids)


def test_a_person_sees_agents_as_a_table_or_as_json(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo hello", "--name", "greeter")
    forkjoin(repository, "wait", "greeter")
    table = forkjoin(repository, "ps").stdout
    assert "greeter" in table
    assert "succeeded" in table
    rows = json.loads(forkjoin(repository, "ps", "--json").stdout)["agents"]
    assert [(row["id"], row["last_event"]) for row in rows] == [("a1", "hello")]


def test_a_persons_wait_fails_when_an_agent_did(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "exit 3")
    done = forkjoin(repository, "wait", check=False)
    assert done.returncode == 1
    assert "failed" in done.stdout


async def test_a_status_reports_a_too_large_git_configuration_and_everything_else(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    config = repository / ".git" / "config"
    sound = config.read_text()
    async with (
        open_reconciler_in_memory(home) as reconciler,
        lead_of(reconciler, repository) as lead,
        lead_of(reconciler, tmp_path) as other,
    ):
        (first,) = await lead.spawn(FOREVER)
        await lead.until(first, state="running")
        config.write_text(sound + f"[x]\n\ty = {'z' * 1_100_000}\n")
        status = await other.call("get_status")
        config.write_text(sound)
        await lead.call("stop_agents", ids=[first])
    assert [line for line in status["trouble"] if "is larger than 1024 KB" in line]
    assert status["running"] == 1


async def test_an_agent_whose_program_is_no_longer_in_the_settings_is_listed_and_read(
    repository: Path, home: Home
) -> None:
    settings = home.config_file.read_text()
    home.config_file.write_text(settings + "[agents.old]\nkind = 'command'\ncommand = ['sh']\n")
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.run("echo said", agent="old")
    home.config_file.write_text(settings)
    async with open_lead_in_memory(home, repository) as lead:
        assert (await lead.listed(first))["agent"] == "old"
        assert await lead.call("read_log", id=first) == "said\n[end]"


async def test_the_status_names_a_merge_that_is_under_way(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead, anyio.create_task_group() as tasks:
        (first,) = await lead.run("echo x > x.txt")
        verify = f"touch {home.state}/on; until test -e {home.state}/go; do sleep 0.02; done"
        tasks.start_soon(partial(lead.call, "merge_worktree", ids=[first], verify=verify))
        await until((home.state / "on").exists)
        assert (await lead.call("get_status"))["merges"] == [f"merge 1: {first} into main"]
        (home.state / "go").touch()
    async with open_lead_in_memory(home, repository) as lead:
        assert (await lead.call("get_status"))["merges"] == []
