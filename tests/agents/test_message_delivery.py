"""Messages to agents: while they run, after their end, in order, and when processes are killed meanwhile."""

import errno
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from forkjoin.agents.message_delivery import find_message_adapter
from forkjoin.app import open_reconciler
from forkjoin.core.error import RecordsError
from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.process.executor import Executor
from forkjoin.reconciler import Reconciler
from support.harness import GIVE_UP_S, Lead, lead_of, open_reconciler_in_memory, program_of

#: A conversation that ends each turn with the message that it got.
ECHO = "succeed(f'{resumed} {told}')"
#: The output of claude when another turn begins.
BEGIN_TURN = "say(type='system', subtype='init', session_id='x')"


async def send_message(lead: Lead, agent: str, text: str) -> str:
    """Send a message, and return how it is delivered."""
    delivery: str = (await lead.call("message_agent", id=agent, text=text))["delivery"]
    return delivery


async def up(lead: Lead, task: str, **more: object) -> str:
    """Return the id of an agent with this task, once it has answered `up`."""
    (agent,) = await lead.spawn(f"answer('up')\n{task}", agent="talker", **more)
    await lead.until(agent, last_event="up")
    return agent


async def test_a_running_agent_gets_messages_at_once_and_in_order(talking: Lead) -> None:
    agent = await up(talking, "succeed(f'{hear()}, {hear()}')")
    assert await send_message(talking, agent, "first") == "now"
    assert await send_message(talking, agent, "second\nline") == "now"
    (result,) = await talking.results(agent)
    assert (result["state"], result["output"]) == ("succeeded", "first, second\nline")
    log = await talking.call("read_log", id=agent)
    assert "noted: told: first" in log


async def test_an_agent_that_waits_for_an_answer_gets_messages_at_once(
    talking: Lead, reconciler: Reconciler, repository: Path
) -> None:
    agent = await up(talking, "succeed(hear())")
    async with program_of(reconciler, agent) as program, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(program.refusal, "ask_lead", question="Which?"))
        assert (await talking.call("wait_agents", timeout_s=GIVE_UP_S))["pending"][0]["state"] == "waiting"
        assert await send_message(talking, agent, "more") == "now"
        (result,) = await talking.results(agent)
        assert (result["state"], result["output"]) == ("succeeded", "more")


async def test_an_ended_agent_continues_in_its_conversation_and_worktree(talking: Lead) -> None:
    task = "open('x.txt', 'a').write(f'{told[-4:]}\\n')\n"
    (agent,) = await talking.run(f"{task}{ECHO}", agent="talker")
    assert await send_message(talking, agent, "more") == "next_turn"
    (result,) = await talking.results(agent)
    assert (result["state"], result["output"], result["insertions"]) == ("succeeded", "True more", 2)


async def test_a_queued_agent_gets_its_messages_in_order(talking: Lead) -> None:
    (agent,) = await talking.run(ECHO, agent="talker", exclusive="key")
    holder = await up(talking, "hear()", exclusive="key")
    for text in ("first", "second"):
        assert await send_message(talking, agent, text) == "next_turn"
    await talking.call("stop_agents", ids=[holder])
    (result,) = await talking.results(agent)
    assert result["output"] == "True first\n\nsecond"


@pytest.mark.parametrize(("program", "task"), [("talker", "x = 'more'"), ("sh", "succeed() { echo more; }")])
async def test_messages_before_the_start_follow_the_task(
    talking: Lead, reconciler: Reconciler, program: str, task: str
) -> None:
    holder = await up(talking, "hear()", exclusive="key")
    (agent,) = await talking.spawn(task, agent=program, exclusive="key")
    assert await send_message(talking, agent, "succeed(x)" if program == "talker" else "succeed") == "next_turn"
    await talking.call("stop_agents", ids=[holder])
    (result,) = await talking.results(agent)
    assert result["output"].strip() == "more"
    assert (await reconciler.store.agents.get(2)).attempt == 1


async def test_a_command_runs_again_with_its_task_and_messages(talking: Lead, tmp_path: Path) -> None:
    (agent,) = await talking.spawn(f"echo up; until test -e {tmp_path}/go; do sleep 0.01; done")
    await talking.until(agent, last_event="up")
    assert await send_message(talking, agent, "echo told; tail -n 1 $FORKJOIN_TASK_FILE") == "next_turn"
    (tmp_path / "go").touch()
    (result,) = await talking.results(agent)
    assert result["output"] == "up\ntold\necho told; tail -n 1 $FORKJOIN_TASK_FILE"


async def test_a_message_after_the_end_of_a_turn_starts_another_turn(talking: Lead, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"import os, time\nwhile run == 1 and not os.path.exists({str(go)!r}): time.sleep(0.01)"
    (agent,) = await talking.spawn(f"{ECHO}\nsys.stdin.read()\n{wait}", agent="talker")
    await talking.last_event(agent, "False")
    assert await send_message(talking, agent, "more") == "next_turn"
    go.touch()
    (result,) = await talking.results(agent)
    assert result["output"] == "True more"


async def test_a_stopped_agent_continues_after_a_message(talking: Lead) -> None:
    agent = await up(talking, f"if run == 1: hear()\n{ECHO}")
    await talking.call("stop_agents", ids=[agent])
    assert await send_message(talking, agent, "go on") == "next_turn"
    (result,) = await talking.results(agent)
    assert (result["state"], result["output"]) == ("succeeded", "True go on")


async def test_waiting_messages_dont_restart_an_agent_that_is_stopped(talking: Lead, reconciler: Reconciler) -> None:
    (agent,) = await talking.spawn("echo up; sleep 1000")
    await talking.until(agent, last_event="up")
    await send_message(talking, agent, "echo more")
    await talking.call("stop_agents", ids=[agent])
    assert (await reconciler.store.agents.get(1)).state == "stopped"


#: Ways in which a program ends after it got a message, without an answer to it.
UNANSWERED = {
    "killed": "os.kill(os.getpid(), 9)",
    "killed in another turn": f"succeed('first'); {BEGIN_TURN}; os.kill(os.getpid(), 9)",
    "an error": "fail('broken', 500)",
}


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("end", UNANSWERED.values(), ids=UNANSWERED.keys())
async def test_an_unanswered_message_is_repeated_in_the_next_attempt(talking: Lead, end: str) -> None:
    agent = await up(talking, f"import os\nif run == 1:\n    hear(); {end}\nsucceed(told)")
    assert await send_message(talking, agent, "do this too") == "now"
    (result,) = await talking.results(agent)
    assert result["output"].startswith("Your program was interrupted")
    assert result["output"].endswith("do this too")


async def test_an_agent_that_runs_out_of_budget_in_a_later_turn_has_not_succeeded(talking: Lead) -> None:
    spend = f"hear(); succeed('first', 0.25); {BEGIN_TURN}; spend(0.5); time.sleep(1000)"
    agent = await up(talking, f"import time\nif run == 1:\n    {spend}\nsucceed(told)", budget_usd=0.5)
    await send_message(talking, agent, "do this too")
    await talking.last_event(agent, "its budget of 0.5 USD is used up")
    await talking.until(agent, state="paused")
    await talking.call("set_budget", id=agent, budget_usd=5)
    (result,) = await talking.results(agent)
    assert result["output"].endswith("do this too")
    assert "; another attempt follows" in await talking.call("read_log", id=agent)


async def test_a_daemon_that_takes_over_sends_no_message_twice(
    talkers: None, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Executor.send

    async def die_after_it(local: Executor, handle: str, data: bytes, *, once: bool = False) -> bool:
        await send(local, handle, data, once=once)
        raise RecordsError("nothing is recorded any more")

    with monkeypatch.context() as patched:
        patched.setattr(Executor, "send", die_after_it)
        async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
            agent = await up(lead, "succeed(hear())")
            assert await send_message(lead, agent, "more") == "next_turn"
            await lead.last_event(agent, "more")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (result,) = await lead.results(agent)
        assert (result["output"], (await reconciler.store.agents.get(1)).attempt) == ("more", 1)


async def test_a_message_is_sent_later_if_the_disk_is_full(
    talking: Lead, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, full = reconciler.services.executor.send, [OSError(errno.ENOSPC, "full")]

    async def try_to_send(handle: str, data: bytes, *, once: bool = False) -> bool:
        if full:
            raise full.pop()
        return await send(handle, data, once=once)

    monkeypatch.setattr(reconciler.services.executor, "send", try_to_send)
    agent = await up(talking, "succeed(hear())")
    assert await send_message(talking, agent, "more") == "next_turn"
    (result,) = await talking.results(agent)
    assert result["output"] == "more"


async def test_an_agent_that_never_started_cant_get_a_message(talking: Lead, reconciler: Reconciler) -> None:
    (first,) = await talking.spawn("exit 1")
    (second,) = await talking.run("echo done", after=[first])
    await send_message(talking, second, "more")
    (result,) = await talking.results(second)
    assert (result["state"], result["summary"]) == ("failed", "skipped: a1 failed")
    assert (await reconciler.store.agents.get(2)).timing.started is None


async def test_an_agent_whose_lead_is_gone_continues_in_the_senders_environment(
    talkers: None, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (agent,) = await lead.run("echo $WHO")
    monkeypatch.setenv("WHO", "another")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository, "session-2") as lead:
        await send_message(lead, agent, "echo again")
        (result,) = await lead.results(agent)
    assert result["output"] == "another\nagain\n"


async def test_an_agent_that_waits_for_a_retry_can_be_read(talking: Lead) -> None:
    (agent,) = await talking.run("echo x > x.txt; echo done", exclusive="key")
    holder = await up(talking, "hear()", exclusive="key")
    await send_message(talking, agent, "echo more")
    assert "+x" in await talking.call("read_diff", id=agent)
    assert (await talking.call("read_log", id=agent)).startswith("done\n")
    result = await talking.call("get_result", id=agent)
    assert (result["state"], result["insertions"]) == ("queued", 1)
    assert "The agent continues: it is queued." in result["warnings"][0]
    await talking.call("stop_agents", ids=[holder, agent])


async def test_the_duration_of_a_running_agent_is_measured_until_now(
    talking: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    (agent,) = await talking.run("true", exclusive="key")
    holder = await up(talking, "hear()", exclusive="key")
    later = SimpleNamespace(time=lambda: time.time() + 1000)
    monkeypatch.setattr("forkjoin_tools.status.time", later)
    assert (await talking.listed(agent))["elapsed_s"] < 1000
    await send_message(talking, agent, "true")
    assert (await talking.listed(agent))["elapsed_s"] >= 1000
    await talking.call("stop_agents", ids=[holder])


async def test_a_wait_for_an_agent_without_budget_ends(talking: Lead) -> None:
    (agent,) = await talking.run("succeed('done', 0.25)", agent="talker", budget_usd=0.25)
    await send_message(talking, agent, "more")
    waited = await talking.call("wait_agents", ids=[agent], timeout_s=GIVE_UP_S)
    assert (waited["pending"][0]["state"], waited["timed_out"]) == ("queued", False)
    assert "its budget of 0.25 USD is used up" in waited["waiting"][0]
    await talking.call("stop_agents", ids=[agent])


async def test_an_agent_cant_redirect_files_that_are_written_for_it(talking: Lead, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    links = f'for name in "$FORKJOIN_TASK_FILE" "${{FORKJOIN_TASK_FILE}}.new"; do ln -sf {victim} "$name"; done'
    meddle = f"{links}; rm -rf .git; git init -q"
    (agent,) = await talking.run(f'tail -n 1 "$FORKJOIN_TASK_FILE"; {meddle}')
    await send_message(talking, agent, "# more")
    (result,) = await talking.results(agent)
    assert result["output"] == "# more"
    assert victim.read_text() == "mine"


async def test_an_agent_that_cant_continue_keeps_its_work(talking: Lead, repository: Path) -> None:
    (agent,) = await talking.run("echo x > x.txt")
    (known,) = (repository / ".git" / "worktrees").iterdir()
    known.rename(repository / "elsewhere")
    await send_message(talking, agent, "true")
    (result,) = await talking.results(agent)
    assert (result["state"], result["insertions"]) == ("failed", 1)
    assert "know the worktree of a1" in result["error"]
    assert "+x" in await talking.call("read_diff", id=agent)


async def test_a_folder_in_place_of_a_failed_worktree_is_not_taken_for_a_worktree(talking: Lead, home: Home) -> None:
    await talking.run("true")
    (above,) = home.worktrees.iterdir()
    (above / "a2-echo").mkdir()
    (above / "a2-echo" / "a file").touch()
    (agent,) = await talking.run("echo")
    await send_message(talking, agent, "true")
    (result,) = await talking.results(agent)
    assert "is not a worktree, but has files in it" in result["error"]


async def test_an_agent_whose_program_left_the_settings_gets_no_messages(talking: Lead, reconciler: Reconciler) -> None:
    agent = await up(talking, "hear()")
    record = await reconciler.store.agents.get(1)
    assert find_message_adapter(reconciler.services, record)
    assert (
        find_message_adapter(
            reconciler.services, replace(record, spec=record.spec.model_copy(update={"agent": "gone"}))
        )
        is None
    )
    await talking.call("stop_agents", ids=[agent])


async def test_a_daemon_that_takes_over_delivers_what_was_recorded(talkers: None, repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        runs = await up(lead, "succeed(f'{hear()}, {hear()}')")
        (ended,) = await lead.run(ECHO, agent="talker")
    async with open_reconciler(home) as reconciler:  # no pass of the reconciler runs
        for number, text in ((1, "first"), (1, "second"), (2, "more")):
            await reconciler.store.messages.add(await reconciler.store.agents.get(number), text, Call("", ""), "", "")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        results = await lead.results(runs, ended)
    assert [result["output"] for result in results] == ["first, second", "True more"]


async def test_a_merged_agent_is_merged_again_with_its_new_work(talking: Lead, repository: Path) -> None:
    task = "open('x.txt', 'a').write(f'{run}\\n')\n"
    (agent,) = await talking.run(f"{task}{ECHO}", agent="talker")
    await talking.call("merge_worktree", ids=[agent])
    await send_message(talking, agent, "more")
    await talking.results(agent)
    assert (await talking.listed(agent))["merge"] == "unmerged"
    answer = await talking.call("merge_worktree", ids=[agent])
    assert [merged["id"] for merged in answer["merged"]] == [agent]
    assert (repository / "x.txt").read_text() == "1\n2\n"


async def test_messages_to_removed_or_renamed_agents_are_refused_with_a_reason(talking: Lead) -> None:
    (merged, removed) = await talking.run("echo x > a; echo done", "true")
    await talking.call("merge_worktree", ids=[merged])
    await talking.call("remove_worktrees", ids=[removed])
    name = (await talking.listed(merged))["name"]
    await talking.call("spawn_agent", task="true", name=name)
    assert "has lost its name to a3" in await talking.refusal("message_agent", id=merged, text="more")
    assert "was removed" in await talking.refusal("message_agent", id=removed, text="more")
    assert (await talking.listed(merged))["state"] == "succeeded"


async def test_a_message_that_is_sent_twice_is_recorded_once(talking: Lead, reconciler: Reconciler) -> None:
    (agent,) = await talking.run("true")
    record = await reconciler.store.agents.get(1)
    call = Call("relay", "request")
    await reconciler.store.messages.add(record, "true", call, record.environment, "")
    assert await reconciler.store.calls.answer_to(call) == {"mail": 1}
    assert (await reconciler.store.agents.get(1)).attempt == 2
    await talking.results(agent)


async def test_warnings_of_earlier_attempts_stay_in_the_result(talking: Lead, repository: Path) -> None:
    move = "import subprocess\nsubprocess.run(['git', 'branch', 'new-' + str(len(told))], check=True)\n"
    (agent,) = await talking.run(f"{move}{ECHO}", agent="talker")
    for text in ("a", "bb"):
        await send_message(talking, agent, text)
        (result,) = await talking.results(agent)
    warnings = [warning for warning in result["warnings"] if "refs other" in warning]
    assert ["new-2 (new)" in warnings[0], "new-1 (new)" in warnings[1]] == [True, True]
    assert [warning.partition(": ")[0] for warning in warnings[1:]] == ["In attempt 2", "In attempt 1"]
    nothing = [warning for warning in result["warnings"] if "changed nothing" in warning]
    assert nothing == ["The agent succeeded but changed nothing, so there is nothing to merge."]
