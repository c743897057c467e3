"""Telling an agent more: while it runs, when it has ended, in order, and whatever is killed meanwhile."""

from pathlib import Path

import pytest
from forkjoin.loop import Loop
from forkjoin.main import open_loop
from forkjoin.paths import Home
from forkjoin.session import Call
from harness import Lead, lead_of, open_loop_in_memory

#: A conversation that ends each turn with what it was told.
ECHO = "succeed(f'{resumed} {told}')"


async def told(lead: Lead, agent: str, text: str) -> str:
    """How this message is delivered."""
    delivery: str = (await lead.call("message_agent", id=agent, text=text))["delivery"]
    return delivery


async def up(lead: Lead, task: str, **more: str) -> str:
    """The id of an agent whose program does this, once it says so."""
    (agent,) = await lead.spawn(f"answer('up')\n{task}", agent="talker", **more)
    await lead.until(agent, last_event="up")
    return agent


async def test_one_that_runs_is_told_at_once_and_in_order(talking: Lead) -> None:
    agent = await up(talking, "succeed(f'{hear()}, {hear()}')")
    assert await told(talking, agent, "first") == "now"
    assert await told(talking, agent, "second\nline") == "now"
    (result,) = await talking.results(agent)
    assert (result["state"], result["output"]) == ("succeeded", "first, second\nline")
    log = await talking.call("read_log", id=agent)
    assert "noted: told: first" in log


async def test_one_that_has_ended_goes_on_in_its_conversation_and_worktree(talking: Lead) -> None:
    task = "open('x.txt', 'a').write(f'{told[-4:]}\\n')\n"
    (agent,) = await talking.run(f"{task}{ECHO}", agent="talker")
    assert await told(talking, agent, "more") == "next_turn"
    (result,) = await talking.results(agent)
    assert (result["state"], result["output"], result["insertions"]) == ("succeeded", "True more", 2)


async def test_what_one_is_told_that_waits_for_its_turn_it_hears_in_order(talking: Lead) -> None:
    (agent,) = await talking.run(ECHO, agent="talker", exclusive="key")
    holder = await up(talking, "hear()", exclusive="key")
    for text in ("first", "second"):
        assert await told(talking, agent, text) == "next_turn"
    await talking.call("stop_agents", ids=[holder])
    (result,) = await talking.results(agent)
    assert result["output"] == "True first\n\nsecond"


async def test_what_one_is_told_before_it_starts_comes_after_its_task(talking: Lead) -> None:
    holder = await up(talking, "hear()", exclusive="key")
    (agent,) = await talking.spawn("succeed(hear())", agent="talker", exclusive="key")
    await told(talking, agent, "more")
    await talking.call("stop_agents", ids=[holder])
    (result,) = await talking.results(agent)
    assert result["output"] == "more"


async def test_a_command_is_run_again_with_its_task_and_what_it_was_told(talking: Lead, tmp_path: Path) -> None:
    (agent,) = await talking.spawn(f"echo up; until test -e {tmp_path}/go; do sleep 0.01; done")
    await talking.until(agent, last_event="up")
    assert await told(talking, agent, "echo told; tail -n 1 $FORKJOIN_TASK_FILE") == "next_turn"
    (tmp_path / "go").touch()
    (result,) = await talking.results(agent)
    assert result["output"] == "up\ntold\necho told; tail -n 1 $FORKJOIN_TASK_FILE"


async def test_what_comes_after_the_end_of_its_turn_is_another_turn(talking: Lead, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"import os, time\nwhile run == 1 and not os.path.exists({str(go)!r}): time.sleep(0.01)"
    (agent,) = await talking.spawn(f"{ECHO}\nsys.stdin.read()\n{wait}", agent="talker")
    await talking.last_event(agent, "False")
    assert await told(talking, agent, "more") == "next_turn"
    go.touch()
    (result,) = await talking.results(agent)
    assert result["output"] == "True more"


async def test_one_that_was_stopped_goes_on_when_it_is_told_to(talking: Lead) -> None:
    agent = await up(talking, f"if run == 1: hear()\n{ECHO}")
    await talking.call("stop_agents", ids=[agent])
    assert await told(talking, agent, "go on") == "next_turn"
    (result,) = await talking.results(agent)
    assert (result["state"], result["output"]) == ("succeeded", "True go on")


async def test_what_waits_for_one_that_is_stopped_does_not_start_it_again(talking: Lead, loop: Loop) -> None:
    (agent,) = await talking.spawn("echo up; sleep 1000")
    await talking.until(agent, last_event="up")
    await told(talking, agent, "echo more")
    await talking.call("stop_agents", ids=[agent])
    assert (await loop.store.agent(1)).state == "stopped"


@pytest.mark.usefixtures("hurried")
async def test_what_a_program_did_not_answer_that_was_killed_is_said_again(talking: Lead) -> None:
    die = "import os\nif run == 1:\n    hear()\n    os.kill(os.getpid(), 9)"
    agent = await up(talking, f"{die}\nsucceed(told)")
    assert await told(talking, agent, "do this too") == "now"
    (result,) = await talking.results(agent)
    assert result["output"].startswith("Your program was cut off")
    assert result["output"].endswith("do this too")


async def test_a_daemon_that_takes_over_delivers_what_was_recorded(talkers: None, repository: Path, home: Home) -> None:
    async with open_loop_in_memory(home) as loop, lead_of(loop, repository) as lead:
        runs = await up(lead, "succeed(f'{hear()}, {hear()}')")
        (ended,) = await lead.run(ECHO, agent="talker")
    async with open_loop(home) as loop:  # nobody runs it
        for number, text in ((1, "first"), (1, "second"), (2, "more")):
            await loop.store.tell(await loop.store.agent(number), text, Call("", ""))
    async with open_loop_in_memory(home) as loop, lead_of(loop, repository) as lead:
        results = await lead.results(runs, ended)
    assert [result["output"] for result in results] == ["first, second", "True more"]


async def test_one_that_was_merged_is_merged_again_with_what_it_did_since(talking: Lead, repository: Path) -> None:
    task = "open('x.txt', 'a').write(f'{run}\\n')\n"
    (agent,) = await talking.run(f"{task}{ECHO}", agent="talker")
    await talking.call("merge_worktree", ids=[agent])
    await told(talking, agent, "more")
    await talking.results(agent)
    assert (await talking.listed(agent))["merge"] == "unmerged"
    answer = await talking.call("merge_worktree", ids=[agent])
    assert [one["id"] for one in answer["merged"]] == [agent]
    assert (repository / "x.txt").read_text() == "1\n2\n"


async def test_who_is_gone_or_has_lost_its_name_is_refused_in_words(talking: Lead) -> None:
    (merged, removed) = await talking.run("echo x > a; echo done", "true")
    await talking.call("merge_worktree", ids=[merged])
    await talking.call("remove_worktrees", ids=[removed])
    name = (await talking.listed(merged))["name"]
    await talking.call("spawn_agent", task="true", name=name)
    assert "is a3's by now" in await talking.refusal("message_agent", id=merged, text="more")
    assert "was removed" in await talking.refusal("message_agent", id=removed, text="more")
    assert (await talking.listed(merged))["state"] == "succeeded"


async def test_a_message_that_is_sent_twice_is_recorded_once(talking: Lead, loop: Loop) -> None:
    (agent,) = await talking.run("true")
    record = await loop.store.agent(1)
    call = Call("relay", "request")
    await loop.store.tell(record, "true", call)
    assert await loop.store.answered(call) == {"mail": 1}
    assert (await loop.store.agent(1)).attempt == 2
    await talking.results(agent)
