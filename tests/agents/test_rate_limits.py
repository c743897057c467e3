"""Rate limits: agents of the account are frozen or pause, and then continue."""

import time
from contextlib import suppress
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from forkjoin.scheduling import rate_limit_policy
from support.harness import Lead, lead_of, let_pass, open_lead, open_reconciler_in_memory, until


async def goes_on(folder: Path) -> None:
    """Return once the program writes into `ticks` in this folder."""
    file = folder / "ticks"
    await until(file.exists)
    before = file.stat().st_size
    await until(lambda: file.stat().st_size > before)


async def is_frozen(home: Home, agent: str) -> None:
    """Return once all processes of the agent's first attempt are frozen."""
    mark = f"FORKJOIN_MARK={home.attempts.resolve() / agent}-1".encode()

    def states() -> set[str]:
        found: set[str] = set()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.add((folder / "stat").read_text().rpartition(")")[2].split()[0])
        return found

    await until(lambda: states() == {"T"})


async def limit_to_one(reconciler: Reconciler, number: int) -> None:
    """Limit this agent's account to one running agent for a while."""
    account = (await reconciler.store.agents.get(number)).account
    reconciler.services.rate_limits[account] = rate_limit_policy.RateLimit(
        1, closed_until=time.time() + 100, reason="429"
    )
    reconciler.store.changes.announce()


#: Ticks until the file `go` exists, and reports a refused call once the file `limited` exists.
TICKS = """
import os, time
while not os.path.exists({go!r}):
    if os.path.exists({limited!r}):
        refused(1)
        os.remove({limited!r})
    with open('ticks', 'a') as file: file.write('x')
    time.sleep(0.02)
succeed('done')"""


async def test_a_refused_call_freezes_the_youngest_agent_of_the_account_until_the_vendor_takes_more(
    talking: Lead, reconciler: Reconciler, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit_policy, "RECOVERY_INTERVAL_S", 1000)
    go, limited = home.state / "go", home.state / "limited"
    ticking = TICKS.format(go=str(go), limited="")
    telling = TICKS.format(go=str(go), limited=str(limited))
    ids = await talking.spawn(telling, ticking, ticking, ticking, agent="talker")
    (other,) = await talking.spawn(ticking, agent="other")
    folders = {id_: Path((await reconciler.store.agents.get(int(id_[1:]))).worktree.path) for id_ in (*ids, other)}
    for id_ in (*ids[1:], other):
        await goes_on(folders[id_])
    limited.touch()
    for id_ in ids[2:]:
        await talking.until(id_, state="paused")
        await is_frozen(home, id_)
    for id_ in (ids[0], ids[1], other):
        await goes_on(folders[id_])
    status = await talking.call("get_status")
    assert (status["running"], status["paused"]) == (3, 2)
    assert any("at once for now" in why or "takes no more until" in why for why in status["waiting"])
    let_pass(reconciler, monkeypatch, 1500)  # allows one more agent
    await talking.until(ids[2], state="running")
    await goes_on(folders[ids[2]])
    await is_frozen(home, ids[3])
    let_pass(reconciler, monkeypatch, 5000)
    await talking.until(ids[3], state="running")
    go.touch()
    assert {result["state"] for result in await talking.results(*ids, other)} == {"succeeded"}


async def test_a_usage_limit_ends_an_attempt_and_the_agent_continues_at_the_reset(
    talking: Lead, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = """
import time
if run < 2:
    answer('I begin.')
    reach_limit(time.time() + 5000)
    fail("You've hit your session limit", 429)
succeed(f'{resumed}')"""
    first, second = await talking.spawn(task, "succeed('done')", agent="talker", retries=0)
    (other,) = await talking.spawn("succeed('done')", agent="other")
    await talking.until(first, state="paused")
    await talking.last_event(first, "takes no more until ")
    assert {result["state"] for result in await talking.results(second, other)} == {"succeeded"}
    (third,) = await talking.spawn("succeed('done')", agent="talker")
    await talking.last_event(third, "takes no more until ")
    let_pass(reconciler, monkeypatch, 4000)
    await talking.run("succeed('done')", agent="other")  # by then, the scheduler has considered all agents
    assert [(await talking.listed(id_))["state"] for id_ in (first, third)] == ["paused", "queued"]
    let_pass(reconciler, monkeypatch, 6000)
    results = await talking.results(first, third)
    assert [(result["state"], result["output"]) for result in results] == [("succeeded", "True"), ("succeeded", "done")]


async def test_an_agent_pauses_after_each_refusal_that_names_no_time(
    talking: Lead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit_policy, "_FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(rate_limit_policy, "RECOVERY_INTERVAL_S", 0.3)
    monkeypatch.setattr(rate_limit_policy, "_SAME_REFUSAL_S", 0.3)
    task = "answer('I begin.')\nif run < 5: fail('API Error: 429', 429)\nsucceed('done')"
    (result,) = await talking.results(*await talking.spawn(task, agent="talker", retries=0))
    assert result["state"] == "succeeded"


async def test_a_frozen_agent_can_be_stopped_and_keeps_its_work(
    talking: Lead, reconciler: Reconciler, home: Home
) -> None:
    first, second = await talking.spawn(*[TICKS.format(go=str(home.state / "go"), limited="")] * 2, agent="talker")
    await talking.until(second, state="running")
    folder = Path((await reconciler.store.agents.get(2)).worktree.path)
    await goes_on(folder)
    await goes_on(Path((await reconciler.store.agents.get(1)).worktree.path))
    await limit_to_one(reconciler, 2)
    await talking.until(second, state="paused")
    await is_frozen(home, second)
    await talking.call("stop_agents", ids=[first, second])
    for result in await talking.results(first, second):
        assert (result["state"], result["files_changed"]) == ("stopped", 1)


@pytest.mark.usefixtures("talkers")
async def test_an_agent_that_was_frozen_when_the_daemon_was_killed_continues(repository: Path, home: Home) -> None:
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        first, second = await lead.spawn(*[TICKS.format(go=str(home.state / "go"), limited="")] * 2, agent="talker")
        await lead.until(second, state="running")
        folder = Path((await reconciler.store.agents.get(2)).worktree.path)
        await goes_on(folder)
        await limit_to_one(reconciler, 2)
        await lead.until(second, state="paused")
        await is_frozen(home, second)
    (home.state / "go").touch()
    async with open_lead(repository) as lead:  # a new daemon, which knows no rate limit
        assert [result["state"] for result in await lead.results(first, second)] == ["succeeded", "succeeded"]
