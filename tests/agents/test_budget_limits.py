"""Budgets: costs are counted while agents run, and agents pause with their work kept when nothing is left."""

from pathlib import Path

import anyio
import pytest
from forkjoin.core.model import PauseKind
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from forkjoin.store.rows import Cost
from forkjoin.store.store import open_store
from support.harness import GIVE_UP_S, Lead, first_answer, forkjoin, git, lead_of, open_reconciler_in_memory
from support.records import fill

#: Spends ten cents per call until the budget is spent, then repeats the message that it got.
SPENDER = """
import time, pathlib
answer('I begin.')
if run == 1:
    pathlib.Path('work').write_text('half')
    while True:
        spend(0.1)
        time.sleep(0.2)
succeed(told, 0.05)"""

#: Ends once the file `go` exists.
WAITER = """
import os, time
answer('I begin.')
while not os.path.exists({go!r}):
    time.sleep(0.02)
succeed('done', 0.2)"""


async def test_costs_are_counted_while_an_agent_runs_and_corrected_by_its_own_total(talking: Lead, home: Home) -> None:
    go = home.state / "go"
    (first,) = await talking.spawn("spend(0.1)\nspend(0.02)" + WAITER.format(go=str(go)), agent="talker")
    await talking.until(first, cost_usd=0.12)
    go.touch()
    (result,) = await talking.results(first)
    assert result["cost_usd"] == 0.2


@pytest.mark.usefixtures("hurried")
async def test_the_cost_of_attempts_without_a_total_is_kept(talking: Lead) -> None:
    task = (
        "import os\nanswer('I begin.')\nif run == 1:\n    spend(0.1)\n    os.kill(os.getpid(), 9)\nsucceed('done', 0.2)"
    )
    (first,) = await talking.spawn(task, agent="talker")
    (result,) = await talking.results(first)
    assert result["cost_usd"] == pytest.approx(0.3)


async def test_an_agent_pauses_at_its_budget_and_continues_with_more(talking: Lead, repository: Path) -> None:
    (first,) = await talking.spawn(SPENDER, agent="talker", budget_usd=0.3, retries=0)
    why = await talking.last_event(first, "its budget of 0.3 USD is used up; set_budget raises it")
    assert why
    paused = await talking.until(first, state="paused")
    assert 0.3 <= paused["cost_usd"] < 0.6
    refused = await talking.refusal("set_budget", id=first, budget_usd=0)
    assert "greater than 0" in refused
    funded = await talking.call("set_budget", id=first, budget_usd=2)
    assert (funded["budget_usd"], funded["spent_usd"]) == (2, paused["cost_usd"])
    (result,) = await talking.results(first)
    assert result["state"] == "succeeded"
    assert "Your program was interrupted" in result["output"]
    assert result["cost_usd"] == pytest.approx(paused["cost_usd"] + 0.05)
    assert git(repository, "show", f"{(await talking.listed(first))['branch']}:work") == "half"


def test_a_command_line_wait_ends_with_the_reason_if_an_agent_needs_more_budget(
    talkers: None, repository: Path, home: Home
) -> None:
    forkjoin(repository, "spawn", SPENDER, "--name", "spender", "--agent", "talker", "--budget-usd", "0.3")
    completed = forkjoin(repository, "wait", "--timeout", str(GIVE_UP_S), check=False)
    assert completed.returncode == 1
    assert "a1: its budget of 0.3 USD is used up" in completed.stdout


async def test_an_agent_is_asked_once_to_wind_up_near_its_budget(talking: Lead) -> None:
    (first,) = await talking.spawn("spend(0.45)\nsucceed(hear(), 0.46)", agent="talker", budget_usd=0.5)
    (result,) = await talking.results(first)
    assert result["output"].startswith("You have spent 0.45 USD of your budget of 0.5 USD. Finish now")
    log = await talking.call("read_log", id=first)
    assert log.count("asked to wind up") == 1


async def test_an_agent_whose_turn_is_over_is_not_asked_to_wind_up(
    talking: Lead, reconciler: Reconciler, home: Home
) -> None:
    go = home.state / "go"
    task = f"succeed('done', 0.01)\nsys.stdin.read()\nspend(0.46)\n{WAITER.format(go=str(go))}"
    (agent,) = await talking.spawn(task, agent="talker", budget_usd=0.5)

    async def is_to_wind_up() -> bool:
        return (await reconciler.store.agents.get(1)).money.wind_up

    await first_answer(is_to_wind_up)
    go.touch()
    await talking.results(agent)
    assert "wind up" not in await talking.call("read_log", id=agent)


async def test_agents_of_two_leads_share_the_budget_of_a_repository(
    talkers: None, reconciler: Reconciler, repository: Path, home: Home
) -> None:
    go = home.state / "go"
    async with (
        lead_of(reconciler, repository) as first_lead,
        lead_of(reconciler, repository, "session-2") as other,
        lead_of(reconciler, repository, kind="cli") as person,
    ):
        await person.call("budget", budget_usd=1)
        for lead in (first_lead, other):
            await lead.spawn(*[WAITER.format(go=str(go))] * 3, agent="talker", budget_usd=0.3)
        everyone = [f"a{number}" for number in range(1, 7)]

        async def run(wanted: int) -> None:
            """Return once this number of agents runs."""

            async def look() -> bool:
                agents = (await first_lead.call("list_agents"))["agents"]
                return [agent["state"] for agent in agents].count("running") == wanted

            await first_answer(look)

        await run(3)
        status = await first_lead.call("get_status")
        assert (status["running"], status["queued"]) == (3, 3)
        (why,) = status["waiting"]
        assert why.endswith(
            "the repository's budget of 1.00 USD has 0.1 USD left, and it needs 0.3 USD; "
            "a person raises it with: forkjoin budget"
        )
        assert status["budgets"] == [f"{repository}/.git: 0 USD of 1.00 USD spent, 0.9 USD reserved"]
        shares = await person.call("budget", budget_usd=1.9)
        assert shares["budgets"][0]["limit_usd"] == 1.9
        await run(6)
        go.touch()
        assert {result["state"] for result in await first_lead.results(*everyone)} == {"succeeded"}
        spent = (await person.call("budget"))["budgets"]
    assert [(share.get("lead"), share["spent_usd"], share["reserved_usd"]) for share in spent] == [
        (None, 1.2, 0),
        ("session-1", 0.6, 0),
        ("session-2", 0.6, 0),
    ]


async def test_a_lead_raises_an_agents_budget_only_within_its_own(
    talking: Lead, reconciler: Reconciler, repository: Path
) -> None:
    async with lead_of(reconciler, repository, kind="cli") as person:
        await person.call("budget", budget_usd=0.5)
    (first,) = await talking.spawn(SPENDER, agent="talker", budget_usd=0.3)
    await talking.last_event(first, "its budget of 0.3 USD is used up")
    await talking.until(first, state="paused")
    refused = await talking.refusal("set_budget", id=first, budget_usd=5)
    assert "the repository's budget of 0.5 USD has" in refused
    assert "There is no tool 'budget'" in await talking.refusal("budget", budget_usd=50)
    assert "budget" not in {tool.name for tool in (await talking.client.list_tools()).tools}
    await talking.call("stop_agents", ids=[first])


async def test_a_model_without_a_price_is_named(talking: Lead) -> None:
    (first,) = await talking.spawn("spend(0.1, 'gpt-of-tomorrow')\nimport os\nos._exit(3)", agent="talker")
    (result,) = await talking.results(first)
    assert "The actual cost is higher than cost_usd: the price is unknown for gpt-of-tomorrow." in result["warnings"]


async def test_an_agent_with_unknown_costs_is_charged_its_whole_reservation(
    talking: Lead, reconciler: Reconciler, repository: Path
) -> None:
    async with lead_of(reconciler, repository, kind="cli") as person:
        await person.call("budget", budget_usd=2)
    end = "say(type='result', subtype='error_max_budget_usd', is_error=True, errors=['Reached maximum budget ($1)'])"
    (first,) = await talking.spawn(f"spend(9, 'gpt-of-tomorrow')\n{end}\nimport os\nos._exit(1)", agent="talker")
    await talking.last_event(first, "the repository's budget of 2.00 USD has 0 USD left")
    paused = await reconciler.store.agents.get(1)
    assert (paused.attempt, paused.money.cost_usd) == (2, 2)
    assert [budget.spent_usd for budget in await reconciler.store.budgets.of_live_agents([1]) if not budget.lead] == [2]


async def test_spending_wakes_the_reconciler_only_near_the_end_of_the_reserve(home: Home) -> None:
    store = await open_store(home.records)
    (agent,) = await fill(store, 1)
    await store.budgets.reserve({1: 1.0})
    woken: list[bool] = []
    for number in range(9):  # as floats, nine tenths add up to a little less than 0.9
        before = store.changes.version
        await store.events.add(agent, [], None, [Cost(str(number), "a model", 0.1)])
        woken.append(store.changes.version > before)
    assert woken == [*[False] * 8, True]
    await store.close()


async def _never(handle: str, grace: float) -> None:
    await anyio.sleep_forever()


async def test_an_agent_that_is_ending_when_the_daemon_goes_is_paused_by_the_next(
    talkers: None, home: Home, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignores = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        monkeypatch.setattr(reconciler.services.executor, "cancel", _never)
        (first,) = await lead.spawn(ignores + SPENDER, agent="talker", budget_usd=0.3)
        await lead.until(first, state="paused")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:

        async def ended() -> bool:
            return (await reconciler.store.agents.get(1)).phase is not PauseKind.ENDING

        await first_answer(ended)
        assert (await reconciler.store.agents.get(1)).state == "paused"
        await lead.call("set_budget", id=first, budget_usd=10)
        (result,) = await lead.results(first)
    assert result["state"] == "succeeded"


async def test_an_agent_whose_program_reached_its_budget_pauses_and_continues_with_more(talking: Lead) -> None:
    task = "answer('I begin.')\nif run == 1: end_spent()\nsucceed(told, 0.1)"
    (first,) = await talking.spawn(task, agent="talker", budget_usd=0.25, retries=0)
    await talking.last_event(first, "its budget of 0.25 USD is used up")
    await talking.call("set_budget", id=first, budget_usd=1)
    (result,) = await talking.results(first)
    assert (result["state"], result["cost_usd"]) == ("succeeded", 0.35)
    assert "Your program was interrupted during your work (" in result["output"]
    assert "set_budget" not in result["output"]


async def test_a_wait_ends_if_no_agent_can_continue_without_its_lead(talking: Lead) -> None:
    (first,) = await talking.spawn("answer('I begin.')\nend_spent()", agent="talker", budget_usd=0.25)
    waited = await talking.call("wait_agents", ids=[first], timeout_s=3000)
    assert (waited["timed_out"], [agent["state"] for agent in waited["pending"]]) == (False, ["paused"])
    assert waited["waiting"][0].startswith("a1: ")
    assert "; set_budget " in waited["waiting"][0]


async def test_an_agent_that_had_answered_when_its_budget_was_spent_has_succeeded(
    talking: Lead, reconciler: Reconciler
) -> None:
    lingers = "succeed('done', 0.6)\nimport sys, time\nsys.stdin.read()\ntime.sleep(60)"
    task = f"spend(0.1)\nopen('work', 'w')\n{lingers}"
    (first,) = await talking.spawn(task, agent="talker", budget_usd=0.5, verify="test -e work")
    await talking.until(first, cost_usd=0.6)
    reconciler.store.changes.announce()
    (result,) = await talking.results(first)
    assert (result["state"], result["output"], result["verify"]) == ("succeeded", "done", "passed")


async def test_an_agent_without_a_budget_gets_no_limit(talking: Lead, reconciler: Reconciler, repository: Path) -> None:
    async with lead_of(reconciler, repository, kind="cli") as person:
        await person.call("budget", budget_usd=0.3)
        task = "import sys\nif run == 1: end_spent()\nsucceed(str('--max-budget-usd' in sys.argv), 0.1)"
        (first,) = await talking.spawn(task, agent="talker")
        await talking.until(first, state="paused")
        await person.call("budget", budget_usd="unlimited")
    (result,) = await talking.results(first)
    assert (result["state"], result["output"]) == ("succeeded", "False")


async def test_an_agent_whose_program_has_its_own_limit_is_not_restarted_forever(talking: Lead) -> None:
    (first,) = await talking.spawn("end_spent()", agent="talker", retries=0)
    (result,) = await talking.results(first)
    assert result["state"] == "failed"


async def test_a_command_needs_no_budget(talking: Lead, reconciler: Reconciler, repository: Path) -> None:
    async with lead_of(reconciler, repository, kind="cli") as person:
        await person.call("budget", budget_usd=0.5)
    answer = await talking.call("spawn_agents", agents=[{"task": "echo x"}], budget_usd=5)
    assert "budget_usd has no effect on a command" in answer["note"]
    (result,) = await talking.results(answer["agents"][0]["id"])
    assert result["state"] == "succeeded"


async def test_implausible_costs_that_a_program_prints_are_ignored(
    talking: Lead, reconciler: Reconciler, home: Home
) -> None:
    huge = "say(type='stream_event', uuid='u', event={'type': 'message_delta', 'usage': {'output_tokens': 10**320}})"
    negative = "say(type='assistant', message={'id': 'm', 'model': 'claude-opus-4-8', 'usage': {'input_tokens': -5}})"
    ids = await talking.spawn(f"{huge}\n{negative}\nsucceed('done', 1e308)", "succeed('done')", agent="talker")
    assert [agent["state"] for agent in await talking.results(*ids)] == ["succeeded"] * 2
    assert [budget.spent_usd for budget in await reconciler.store.budgets.of_live_agents([1])] == [0.25]


async def test_budgets_of_the_settings_apply_and_a_dry_run_returns_the_reservation(
    talkers: None, home: Home, repository: Path
) -> None:
    said = "\n[budget]\nagent_usd = 0.4\nlead_usd = 1\n"
    home.config_file.write_text(home.config_file.read_text() + said)
    task = WAITER.format(go=str(home.state / "go"))
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        dry = await lead.call(
            "spawn_agents", agents=[{"task": task}] * 3, agent="talker", nesting={"agents": 1}, dry_run=True
        )
        assert dry["to_reserve_usd"] == pytest.approx(1.2)
        ids = await lead.spawn(task, task, task, agent="talker")
        why = await lead.last_event(ids[2], "its lead's budget of 1.00 USD has 0.2 USD left, and it needs 0.4 USD")
        assert why.endswith("forkjoin budget --lead session-1")
        (home.state / "go").touch()
        assert {result["state"] for result in await lead.results(*ids)} == {"succeeded"}


async def test_a_person_limits_a_lead_and_resets_its_spending(
    talking: Lead, reconciler: Reconciler, repository: Path
) -> None:
    await talking.results(*await talking.spawn("succeed('done', 0.3)", agent="talker"))
    async with lead_of(reconciler, repository, kind="cli") as person:
        shares = (await person.call("budget", budget_usd=0.5, lead="session-1"))["budgets"]
        assert {share.get("lead"): share.get("limit_usd") for share in shares} == {None: None, "session-1": 0.5}
        (second,) = await talking.spawn("succeed('done', 0.1)", agent="talker", budget_usd=0.4)
        await talking.last_event(second, "its lead's budget of 0.5 USD has 0.2 USD left")
        await person.call("budget", lead="session-1", anew=True)
        await talking.results(second)
        shares = (await person.call("budget"))["budgets"]
        assert {share.get("lead"): share["spent_usd"] for share in shares} == {None: 0.4, "session-1": 0.1}
