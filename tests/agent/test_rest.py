"""Between attempts: passing trouble, and what a vendor refuses, ends an attempt or holds it, never its agent."""

import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from fakes import claude
from forkjoin.decision import governor, retry
from forkjoin.loop import Loop
from forkjoin.main import open_loop
from forkjoin.paths import Home
from harness import GIVE_UP_S, Lead, git, lead_of, open_lead, open_loop_in_memory, until

CONFIG = """
[agents.talker]
kind = "claude"
command = ["{python}", "{script}"]
[agents.other]
kind = "claude"
command = ["{python}", "{script}"]
environment = {{ ANTHROPIC_API_KEY = "another" }}
"""


@pytest.fixture(autouse=True)
def talker(home: Home) -> None:
    """Agent programs that speak as claude does, of two accounts."""
    with home.config_file.open("a") as file:
        file.write(CONFIG.format(python=sys.executable, script=claude.__file__))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests of a moment."""
    monkeypatch.setattr(retry, "_FIRST_S", 0.01)
    monkeypatch.setattr(governor, "_FIRST_REST_S", 0.01)
    monkeypatch.setattr(governor, "GROWS_EVERY_S", 0.3)
    monkeypatch.setattr(governor, "_SAME_S", 0.3)


@pytest.fixture
async def loop(home: Home) -> AsyncIterator[Loop]:
    async with open_loop_in_memory(home) as loop:
        yield loop


@pytest.fixture
async def near(loop: Loop, repository: Path) -> AsyncIterator[Lead]:
    async with lead_of(loop, repository) as lead:
        yield lead


async def ended(lead: Lead, *ids: str) -> list[Any]:
    """Their results, once they have ended."""
    assert not (await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S))["timed_out"]
    return [await lead.call("get_result", id=one) for one in ids]


async def ticks(folder: Path, *, go_on: bool) -> None:
    """Return once the agent whose program writes into `ticks` there goes on doing so, or has stopped."""
    file = folder / "ticks"
    await until(file.exists)
    with anyio.fail_after(GIVE_UP_S):
        while True:
            before = file.stat().st_size
            await anyio.sleep(0.5)
            if (file.stat().st_size > before) is go_on:
                return


def skip(loop: Loop, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so many seconds pass for whatever waits."""
    monkeypatch.setattr("forkjoin.agent.start.time", SimpleNamespace(time=lambda: time.time() + seconds))
    loop.store.changes.announce()


async def why_waits(lead: Lead, agent: str, beginning: str) -> None:
    """Return once it is said to wait for a reason that begins so."""
    with anyio.fail_after(GIVE_UP_S):
        while not (await lead.listed(agent))["last_event"].startswith(beginning):
            await anyio.sleep(0.02)


# -- trying again


@pytest.mark.usefixtures("hurried")
async def test_a_command_that_exits_75_is_run_again_in_its_worktree_as_it_left_it(near: Lead) -> None:
    (first,) = await near.spawn("echo x >> x.txt; test $(wc -l < x.txt) = 3 && echo done || exit 75", retries=2)
    (result,) = await ended(near, first)
    assert (result["state"], result["output"]) == ("succeeded", "done\n")
    assert len(result["commits"]) == 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2), (None, 3)])
async def test_it_is_tried_no_more_often_than_was_said(near: Lead, retries: int | None, runs: int) -> None:
    (first,) = await near.spawn("echo x >> x.txt; exit 75", retries=retries)
    (result,) = await ended(near, first)
    assert (result["state"], result["error"], result["insertions"]) == ("failed", "exit 75", runs)


@pytest.mark.usefixtures("hurried")
async def test_other_failures_are_not_tried_again(near: Lead, repository: Path) -> None:
    ids = await near.spawn("echo x >> x.txt; exit 1", "echo x >> x.txt; kill -9 $$")
    ids += await near.spawn("echo x >> x.txt", verify="exit 75")
    ids += await near.spawn("fail('no such model', 404)", "fail('prompt is too long')", agent="talker")
    assert {result["state"] for result in await ended(near, *ids)} == {"failed"}
    assert git(repository, "log", "--all", "--format=%s").count("Uncommitted work") == 3


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    "trouble",
    [
        "fail('API Error: 503 down', 503)",
        "fail('API Error: Unable to connect to API (ECONNRESET)')",
        "os.kill(os.getpid(), 9)",
    ],
)
async def test_a_claude_that_met_with_passing_trouble_goes_on_in_its_conversation(near: Lead, trouble: str) -> None:
    task = f"import os\nif run == 1:\n    answer('I begin.')\n    {trouble}\nsucceed(f'{{resumed}} {{told}}')"
    (result,) = await ended(near, *await near.spawn(task, agent="talker"))
    assert result["state"] == "succeeded"
    assert result["cost_usd"] == (0.25 if "kill" in trouble else 0.5)  # all attempts together
    assert result["output"].startswith("True Your program was cut off in the midst of your work (ended: ")


@pytest.mark.usefixtures("hurried")
async def test_one_that_was_never_answered_begins_anew(near: Lead) -> None:
    task = "import os\nif run == 1: os.kill(os.getpid(), 9)\nsucceed(f'{resumed} {told[:9]}')"
    (result,) = await ended(near, *await near.spawn(task, agent="talker"))
    assert (result["state"], result["output"]) == ("succeeded", "False import os")


@pytest.mark.usefixtures("hurried")
async def test_a_claude_whose_shim_was_killed_goes_on_and_a_command_is_lost(near: Lead, home: Home) -> None:
    task = "import time\nif run == 1:\n    answer('I begin.')\n    time.sleep(1000)\nsucceed('done')"
    (talker,) = await near.spawn(task, agent="talker")
    (command,) = await near.spawn("sleep 1000")
    await near.until(talker, last_event="I begin.")
    await near.until(command, state="running")
    for one in (talker, command):
        started = (home.attempts / f"{one}-1" / "started.json").read_text()
        os.kill(int(started.split(",")[1]), signal.SIGKILL)
    results = await ended(near, talker, command)
    assert [result["state"] for result in results] == ["succeeded", "lost"]


async def test_one_that_rests_says_so_and_keeps_its_work_when_it_is_stopped(
    near: Lead, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_FIRST_S", 1000)
    (first,) = await near.spawn("echo x > x.txt; exit 75")
    await near.until(first, state="paused")
    await why_waits(near, first, "it rests until ")
    status = await near.call("get_status")
    assert (status["running"], status["queued"], status["paused"]) == (0, 0, 1)
    assert status["waiting"][0].startswith("a1: it rests until ")
    await near.call("stop_agents", ids=[first])
    (result,) = await ended(near, first)
    assert (result["state"], result["merge"], result["files_changed"]) == ("stopped", "unmerged", 1)
    assert not (home.attempts / "a1-2").exists()


async def test_a_daemon_that_takes_over_lets_go_on_who_rests(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_FIRST_S", 2)
    async with open_loop_in_memory(home) as loop, lead_of(loop, repository) as lead:
        (first,) = await lead.spawn("test -e x.txt && echo again || { touch x.txt; exit 75; }")
        await lead.until(first, state="paused")
    async with open_loop_in_memory(home) as loop, lead_of(loop, repository) as lead:
        (result,) = await ended(lead, first)
        assert (result["state"], result["output"]) == ("succeeded", "again\n")


async def test_a_next_attempt_that_was_queued_when_its_daemon_died_is_started(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_FIRST_S", 1000)
    async with open_loop_in_memory(home) as loop, lead_of(loop, repository) as lead:
        ids = await lead.spawn(*["test -e x.txt && echo again || { touch x.txt; exit 75; }"] * 2)
        for one in ids:
            await lead.until(one, state="paused")
    async with open_loop(home) as loop:  # nobody runs it
        for number in (1, 2):
            await loop.store.queue_again(await loop.store.agent(number), "Go on.")
        await loop.store.ask_stop([await loop.store.agent(2)])
    async with open_loop_in_memory(home) as loop, lead_of(loop, repository) as lead:
        results = await ended(lead, *ids)
    assert [(one["state"], one["output"]) for one in results] == [("succeeded", "again\n"), ("stopped", "")]
    assert [one["files_changed"] for one in results] == [1, 1]
    assert (home.attempts / "a1-2" / "started.json").exists()
    assert not (home.attempts / "a2-2" / "started.json").exists()


# -- what a vendor refuses

#: Ticks until it is told to end, after it was told to refuse.
TICKS = """
import os, time
while not os.path.exists({go!r}):
    if os.path.exists({limited!r}):
        refused(1)
        os.remove({limited!r})
    with open('ticks', 'a') as file: file.write('x')
    time.sleep(0.02)
succeed('done')"""


async def test_a_refusal_freezes_the_youngest_until_the_vendor_takes_more_and_no_other_account(
    near: Lead, loop: Loop, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(governor, "GROWS_EVERY_S", 2.0)
    go, limited = home.state / "go", home.state / "limited"
    ticking = TICKS.format(go=str(go), limited="")
    telling = TICKS.format(go=str(go), limited=str(limited))
    ids = await near.spawn(telling, ticking, ticking, ticking, agent="talker")
    (other,) = await near.spawn(ticking, agent="other")
    folders = {one: Path((await loop.store.agent(int(one[1:]))).worktree) for one in (*ids, other)}
    for one in (*ids[1:], other):
        await ticks(folders[one], go_on=True)
    limited.touch()
    for one in ids[2:]:
        await near.until(one, state="paused")
        await ticks(folders[one], go_on=False)
    for one in (ids[0], ids[1], other):
        await ticks(folders[one], go_on=True)
    status = await near.call("get_status")
    assert (status["running"], status["paused"]) == (3, 2)
    assert any("at once for now" in why or "takes no more until" in why for why in status["waiting"])
    for one in ids[2:]:  # one more each two seconds
        await near.until(one, state="running")
        await ticks(folders[one], go_on=True)
    go.touch()
    assert {result["state"] for result in await ended(near, *ids, other)} == {"succeeded"}


async def test_a_limit_of_use_ends_an_attempt_and_its_agent_goes_on_at_the_reset(
    near: Lead, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = """
import time
if run < 2:
    answer('I begin.')
    reach_limit(time.time() + 5000)
    fail("You've hit your session limit", 429)
succeed(f'{resumed}')"""
    first, second = await near.spawn(task, "succeed('done')", agent="talker", retries=0)
    (other,) = await near.spawn("succeed('done')", agent="other")
    await near.until(first, state="paused")
    await why_waits(near, first, "claude-")
    assert {result["state"] for result in await ended(near, second, other)} == {"succeeded"}
    (third,) = await near.spawn("succeed('done')", agent="talker")
    await why_waits(near, third, "claude-")
    skip(loop, monkeypatch, 4000)
    assert not (await near.call("wait_agents", ids=[first, third], timeout_s=0))["finished"]
    skip(loop, monkeypatch, 6000)
    results = await ended(near, first, third)
    assert [(one["state"], one["output"]) for one in results] == [("succeeded", "True"), ("succeeded", "done")]


@pytest.mark.usefixtures("hurried")
async def test_refusals_that_tell_no_time_are_rested_from_as_often_as_it_takes(near: Lead) -> None:
    task = "answer('I begin.')\nif run < 5: fail('API Error: 429', 429)\nsucceed('done')"
    (result,) = await ended(near, *await near.spawn(task, agent="talker", retries=0))
    assert result["state"] == "succeeded"


async def test_what_is_frozen_is_stopped_with_its_work(near: Lead, loop: Loop, home: Home) -> None:
    first, second = await near.spawn(*[TICKS.format(go=str(home.state / "go"), limited="")] * 2, agent="talker")
    await near.until(second, state="running")
    folder = Path((await loop.store.agent(2)).worktree)
    await ticks(folder, go_on=True)
    account = (await loop.store.agent(2)).account
    loop.rooms.accounts[account] = governor.Account(1, time.time() + 100, time.time(), time.time(), 1, "429")
    loop.store.changes.announce()
    await near.until(second, state="paused")
    await ticks(folder, go_on=False)
    await near.call("stop_agents", ids=[first, second])
    for result in await ended(near, first, second):
        assert (result["state"], result["files_changed"]) == ("stopped", 1)


async def test_what_was_frozen_when_its_daemon_was_killed_goes_on(repository: Path, home: Home) -> None:
    async with open_loop_in_memory(home) as loop, lead_of(loop, repository) as lead:
        first, second = await lead.spawn(*[TICKS.format(go=str(home.state / "go"), limited="")] * 2, agent="talker")
        await lead.until(second, state="running")
        agent = await loop.store.agent(2)
        await ticks(Path(agent.worktree), go_on=True)
        loop.rooms.accounts[agent.account] = governor.Account(1, time.time() + 100, time.time(), time.time(), 1, "429")
        loop.store.changes.announce()
        await lead.until(second, state="paused")
        await ticks(Path(agent.worktree), go_on=False)
    (home.state / "go").touch()
    async with open_lead(repository) as lead:  # a daemon that knows of no limit
        assert [result["state"] for result in await ended(lead, first, second)] == ["succeeded", "succeeded"]
