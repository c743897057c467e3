"""Retries: a transient error ends an attempt, but not the agent."""

import os
import signal
from pathlib import Path

import pytest
from forkjoin.adapters.contract import Conclusion, Retry
from forkjoin.agents.retry import pause_after
from forkjoin.app import open_reconciler
from forkjoin.core.error import BrokenPromiseError
from forkjoin.core.model import PauseKind, State
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.agent_records import change, make_agent
from support.attempts import change_shims
from support.harness import Lead, git, lead_of, let_pass, open_reconciler_in_memory


async def test_the_pause_for_a_spent_budget_names_the_tool_that_raises_it(
    talking: Lead, reconciler: Reconciler
) -> None:
    spent = Conclusion(ok=False, output="", error="Reached maximum budget", retry=Retry.WHEN_FUNDED)
    pause = pause_after(reconciler.services, make_agent(1, budget_usd=0.3, reserved_usd=0.3), spent)
    assert pause is not None
    assert pause.why == "its budget is spent; set_budget raises it"
    assert "set_budget" in {tool.name for tool in (await talking.client.list_tools()).tools}


@pytest.mark.usefixtures("hurried")
async def test_a_command_that_exits_75_is_run_again_in_its_worktree_as_it_left_it(talking: Lead) -> None:
    (first,) = await talking.spawn("echo x >> x.txt; test $(wc -l < x.txt) = 3 && echo done || exit 75", retries=2)
    (result,) = await talking.results(first)
    assert (result["state"], result["output"]) == ("succeeded", "done\n")
    assert len(result["commits"]) == 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2), (None, 3)])
async def test_an_agent_is_retried_no_more_often_than_allowed(talking: Lead, retries: int | None, runs: int) -> None:
    (first,) = await talking.spawn("echo x >> x.txt; exit 75", retries=retries)
    (result,) = await talking.results(first)
    assert (result["state"], result["error"], result["insertions"]) == ("failed", "exit 75", runs)


@pytest.mark.usefixtures("hurried")
async def test_other_failures_are_not_retried(talking: Lead, repository: Path) -> None:
    ids = await talking.spawn("echo x >> x.txt; exit 1", "echo x >> x.txt; kill -9 $$")
    ids += await talking.spawn("echo x >> x.txt", verify="exit 75")
    ids += await talking.spawn("fail('no such model', 404)", "fail('prompt is too long')", agent="talker")
    assert {result["state"] for result in await talking.results(*ids)} == {"failed"}
    assert git(repository, "log", "--all", "--format=%s").count("Uncommitted work") == 3


@pytest.mark.usefixtures("hurried")
async def test_claude_starts_again_with_its_task_if_its_conversation_is_gone(talking: Lead) -> None:
    gone = "fail('No conversation found with session ID: 1')"
    task = f"import os\nif run == 1:\n    answer('I begin.')\n    os.kill(os.getpid(), 9)\nif resumed: {gone}"
    (first,) = await talking.spawn(f"{task}\nsucceed(f'{{run}} {{told[:9]}}')", agent="talker")
    (result,) = await talking.results(first)
    assert (result["state"], result["output"]) == ("succeeded", "3 import os")


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "trouble",
    [
        "fail('API Error: 503 down', 503)",
        "fail('API Error: Unable to connect to API (ECONNRESET)')",
        "os.kill(os.getpid(), 9)",
    ],
)
async def test_claude_continues_its_conversation_after_a_transient_error(talking: Lead, trouble: str) -> None:
    task = f"import os\nif run == 1:\n    answer('I begin.')\n    {trouble}\nsucceed(f'{{resumed}} {{told}}')"
    (result,) = await talking.results(*await talking.spawn(task, agent="talker"))
    assert result["state"] == "succeeded"
    assert result["cost_usd"] == (0.25 if "kill" in trouble else 0.5)  # the sum over all attempts
    assert result["output"].startswith("True Your program was interrupted during your work (")


@pytest.mark.usefixtures("hurried")
async def test_an_agent_without_an_answer_starts_a_new_conversation(talking: Lead) -> None:
    task = "import os\nif run == 1: os.kill(os.getpid(), 9)\nsucceed(f'{resumed} {told[:9]}')"
    (result,) = await talking.results(*await talking.spawn(task, agent="talker"))
    assert (result["state"], result["output"]) == ("succeeded", "False import os")


@pytest.mark.usefixtures("hurried")
async def test_when_a_shim_is_killed_claude_continues_and_a_command_is_lost(talking: Lead, home: Home) -> None:
    task = "import time\nif run == 1:\n    answer('I begin.')\n    time.sleep(1000)\nsucceed('done')"
    (talker,) = await talking.spawn(task, agent="talker")
    (command,) = await talking.spawn("echo up; sleep 1000")
    await talking.until(talker, last_event="I begin.")
    await talking.until(command, last_event="up")
    for id_ in (talker, command):
        started = (home.attempts / f"{id_}-1" / "started.json").read_text()
        os.kill(int(started.split(",")[1]), signal.SIGKILL)
    results = await talking.results(talker, command)
    assert [result["state"] for result in results] == ["succeeded", "lost"]


@pytest.mark.usefixtures("hurried")
async def test_an_agent_whose_shim_was_killed_before_its_program_started_is_started_again(
    talking: Lead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fell = str(tmp_path / "fell")
    change_shims(
        monkeypatch,
        tmp_path,
        f"import os\nif not os.path.exists({fell!r}):\n    open({fell!r}, 'w').close()\n    os.kill(os.getpid(), 9)",
    )
    (result,) = await talking.results(*await talking.spawn("echo x >> x.txt; echo done"))
    assert (result["state"], result["insertions"]) == ("succeeded", 1)
    assert Path(fell).exists()


@pytest.mark.usefixtures("unhurried")
async def test_an_agent_between_attempts_keeps_its_work_when_it_is_stopped(talking: Lead, home: Home) -> None:
    (first,) = await talking.spawn("echo x > x.txt; exit 75")
    await talking.until(first, state="paused")
    await talking.last_event(first, "it rests until ")
    status = await talking.call("get_status")
    assert (status["running"], status["queued"], status["paused"]) == (0, 0, 1)
    assert status["waiting"][0].startswith("a1: it rests until ")
    await talking.call("stop_agents", ids=[first])
    (result,) = await talking.results(first)
    assert (result["state"], result["merge"], result["files_changed"]) == ("stopped", "unmerged", 1)
    assert not (home.attempts / "a1-2").exists()


@pytest.mark.usefixtures("unhurried")
async def test_a_daemon_that_takes_over_starts_the_next_attempt_after_a_pause(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.spawn("test -e x.txt && echo again || { touch x.txt; exit 75; }")
        await lead.until(first, state="paused")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        await lead.last_event(first, "it rests until ")
        let_pass(reconciler, monkeypatch, 3000)
        (result,) = await lead.results(first)
        assert (result["state"], result["output"]) == ("succeeded", "again\n")


@pytest.mark.usefixtures("hurried")
async def test_a_program_that_asks_for_a_retry_when_it_is_stopped_gets_none(talking: Lead) -> None:
    (first,) = await talking.spawn("trap 'exit 75' TERM; echo x > x.txt; while :; do sleep 0.01; done")
    await talking.until(first, state="running")
    (stopped,) = (await talking.call("stop_agents", ids=[first]))["agents"]
    assert stopped["state"] == "stopped"


@pytest.mark.usefixtures("hurried")
async def test_an_agent_that_ended_meanwhile_does_not_prevent_stopping_others(
    talking: Lead, reconciler: Reconciler
) -> None:
    first, second = await talking.spawn("test -e x.txt || { touch x.txt; exit 75; }", "sleep 1000")
    await talking.results(first)
    await reconciler.store.lifecycle.ask_stop(await reconciler.store.agents.get_all([1, 2]))
    (result,) = await talking.results(second)
    assert result["state"] == "stopped"
    assert (await talking.listed(first))["state"] == "succeeded"


@pytest.mark.usefixtures("hurried")
async def test_a_lock_that_a_killed_git_left_is_removed_before_the_next_attempt(talking: Lead) -> None:
    breaks = 'touch "$(git rev-parse --git-path index.lock)"; exit 75'
    task = f"echo x >> x.txt; test $(wc -l < x.txt) = 2 || {{ {breaks}; }}; git add . && git commit -qm both"
    (result,) = await talking.results(*await talking.spawn(task))
    assert (result["state"], [commit.split()[1] for commit in result["commits"]]) == ("succeeded", ["both"])


@pytest.mark.usefixtures("unhurried")
async def test_an_outdated_decision_doesnt_continue_an_ended_agent(talking: Lead, reconciler: Reconciler) -> None:
    await talking.spawn("exit 75")
    await talking.until("a1", state="paused")
    frozen = change(await reconciler.store.agents.get(1), kind=PauseKind.FROZEN)
    with pytest.raises(BrokenPromiseError):
        await reconciler.store.lifecycle.move(frozen, State.RUNNING)


@pytest.mark.usefixtures("unhurried")
async def test_a_next_attempt_that_was_queued_when_its_daemon_died_is_started(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        ids = await lead.spawn(*["test -e x.txt && echo again || { touch x.txt; exit 75; }"] * 2)
        for id_ in ids:
            await lead.until(id_, state="paused")
    async with open_reconciler(home) as reconciler:  # no pass of the reconciler runs
        for number in (1, 2):
            await reconciler.store.lifecycle.queue_again(await reconciler.store.agents.get(number), "Go on.")
        await reconciler.store.lifecycle.ask_stop([await reconciler.store.agents.get(2)])
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        results = await lead.results(*ids)
    assert [(result["state"], result["output"]) for result in results] == [("succeeded", "again\n"), ("stopped", "")]
    assert [result["files_changed"] for result in results] == [1, 1]
    assert (home.attempts / "a1-2" / "started.json").exists()
    assert not (home.attempts / "a2-2" / "started.json").exists()
