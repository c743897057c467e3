"""Whom a conflict is given to with on_conflict="agent", once and again, and who is told."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from forkjoin.adapters import command
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.branches import commit
from support.harness import Lead, ToolRefusedError, forkjoin, git
from support.merges import check_sound, ids_of
from support.resolver_agent import COMMITTED, ONE, THREE, TWO, conflict, fares, let_agents_resolve, resolve_by


@pytest.fixture(autouse=True)
def _resolving(home: Home) -> None:
    let_agents_resolve(home)


async def test_another_target_and_work_that_went_on_have_another_agent(
    near_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    git(repository, "branch", "other")
    await conflict(near_lead, ONE, TWO)

    async def merge(target: str, second: str = "a2") -> str:
        answer = await near_lead.call("merge_worktree", ids=["a1", second], into=target, on_conflict="agent")
        resolving: str = answer["conflicted"][0]["resolving"]
        await near_lead.results(resolving)
        return resolving

    assert [await merge("other"), await merge("main"), await merge("other")] == ["a4", "a3", "a4"]
    git(
        repository,
        "worktree",
        "add",
        "-q",
        "--detach",
        str(repository.parent / "by"),
        "forkjoin/a2-echo-2-shared-txt-second",
    )
    made = commit(repository.parent / "by", {"more": "x\n"})
    git(repository, "update-ref", "refs/heads/forkjoin/a2-echo-2-shared-txt-second", made)
    assert [await merge("main", f"a2@{made}"), await merge("other")] == ["a5", "a6"]
    assert (
        await in_process_reconciler.store.agents.get(5)
    ).dependencies.after == ()  # the one before it is at what is no more


async def test_whoever_comes_in_a_later_call_is_behind_those_at_the_same_file(
    near_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home
) -> None:
    await near_lead.run(ONE, TWO, THREE)
    await near_lead.call("merge_worktree", ids=["a1", "a2"], on_conflict="agent")
    await near_lead.call("merge_worktree", ids=["a3"], on_conflict="agent")
    await near_lead.results("a4", "a5")
    assert (await in_process_reconciler.store.agents.get(5)).dependencies.after == (4,)
    assert "from how the conflicts of a2 were resolved" in (home.state / "brief-a5").read_text()
    assert ids_of(await near_lead.call("merge_worktree", ids=["a4", "a5"]), "merged") == ["a4", "a2", "a5", "a3"]


async def test_one_that_has_the_work_of_what_was_rejected_does_not_count(near_lead: Lead) -> None:
    four, five = await conflict(near_lead, ONE, TWO, THREE)
    await near_lead.call("merge_worktree", ids=[four], verify="test 1 = $(cat shared.txt)")
    assert await fares(near_lead, four) == ["rejected"]
    (conflicted,) = (await near_lead.call("merge_worktree", ids=["a3"], on_conflict="agent"))["conflicted"]
    assert conflicted["resolving"] == "a6"
    assert five == "a5"


async def test_a_conflict_has_one_agent_until_that_has_failed(near_lead: Lead, home: Home) -> None:
    resolve_by(home, "until [ -e $FORKJOIN_HOME/go ]; do sleep 0.02; done; . $FORKJOIN_HOME/then.sh")
    (home.state / "then.sh").write_text("exit 1")
    ids = await near_lead.run(ONE, TWO)

    async def merge() -> str:
        answer = await near_lead.call("merge_worktree", ids=ids, on_conflict="agent")
        resolving: str = answer["conflicted"][0]["resolving"]
        return resolving

    assert [await merge(), await merge()] == ["a3", "a3"]
    (home.state / "go").touch()
    await near_lead.results("a3")
    (home.state / "then.sh").write_text(COMMITTED)
    assert await merge() == "a4"
    assert (await near_lead.results("a4"))[0]["state"] == "succeeded"
    assert await merge() == "a4"


async def test_one_that_verify_has_rejected_is_followed_by_another(near_lead: Lead) -> None:
    await conflict(near_lead, ONE, TWO)
    await near_lead.call("merge_worktree", ids=["a3"], verify="false || test 1 = $(cat shared.txt)")
    assert await fares(near_lead, "a3") == ["rejected"]
    (conflicted,) = (await near_lead.call("merge_worktree", ids=["a2"], on_conflict="agent"))["conflicted"]
    assert conflicted["resolving"] == "a4"
    await near_lead.results("a4")
    answer = await near_lead.call("merge_worktree", ids=["a3", "a4", "a2"])
    assert (ids_of(answer, "merged"), answer["skipped"]) == (["a3", "a2", "a4"], [])


async def test_while_it_is_at_it_the_two_are_not_told_to_conflict(near_lead: Lead, home: Home) -> None:
    resolve_by(home, "sleep 1000")
    ids = await near_lead.run(ONE, TWO)
    await near_lead.call("merge_worktree", ids=ids, on_conflict="agent")
    await near_lead.until("a3", state="running")
    answer = await near_lead.call("check_conflicts", ids=["a2", "a3"])
    assert [one["between"] for one in answer["conflicts"]] == [["a2", "main"]]
    await near_lead.call("stop_agents", ids=["a3"])


def _account(_environment: Mapping[str, str]) -> str:
    return "of whoever merges"


async def test_it_is_like_the_one_whose_work_conflicts_but_for_the_account_of_whoever_merges(
    near_lead: Lead, in_process_reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await near_lead.run(ONE)
    await near_lead.run(TWO, priority=7, timeout_minutes=9, verify="test -e shared.txt", paths=["x"], base="HEAD")
    monkeypatch.setattr(command, "account", _account)
    await near_lead.call("merge_worktree", ids=["a1", "a2"], on_conflict="agent")
    agent = await in_process_reconciler.store.agents.get(3)
    assert agent.account == "of whoever merges"
    spec = agent.spec
    assert (spec.agent, spec.priority, spec.timeout_minutes, spec.verify) == ("sh", 7, 9, "test -e shared.txt")
    assert (spec.base, agent.conflict.agent, agent.lead) == (
        None,
        2,
        (await in_process_reconciler.store.agents.get(2)).lead,
    )


async def test_a_dry_run_with_agents_for_conflicts_is_refused_in_words(near_lead: Lead) -> None:
    await near_lead.run(ONE)
    refusal = await near_lead.refusal("merge_worktree", ids=["a1"], on_conflict="agent", dry_run=True)
    assert "a dry run changes nothing" in refusal


async def test_without_it_a_conflict_is_only_told(near_lead: Lead, in_process_reconciler: Reconciler) -> None:
    ids = await near_lead.run(ONE, TWO)
    (conflicted,) = (await near_lead.call("merge_worktree", ids=ids))["conflicted"]
    assert "resolving" not in conflicted
    assert len(await in_process_reconciler.store.agents.page(1, everything=True)) == 2


async def test_where_no_ports_are_left_what_landed_is_told_all_the_same(
    near_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    (repository / "forkjoin.toml").write_text("ports = 1000\n")
    forkjoin(repository, "trust", "--yes")
    ids = await near_lead.run(ONE, TWO)
    with pytest.raises(ToolRefusedError):
        while True:
            await near_lead.run("true")
    answer = await near_lead.call("merge_worktree", ids=ids, on_conflict="agent")
    assert ids_of(answer, "merged") == ["a1"]
    assert answer["note"].startswith("No agent was spawned for the conflicts. No 1000 ports in a row are free")


async def test_whoever_resolves_may_do_what_the_one_may_whose_work_conflicts(
    near_lead: Lead, in_process_reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "KEEPS_PERMISSIONS", True)
    await near_lead.run(ONE)
    await near_lead.run(TWO, permissions={"deny": ["WebFetch"]})
    (conflicted,) = (await near_lead.call("merge_worktree", ids=["a1", "a2"], on_conflict="agent"))["conflicted"]
    await near_lead.results(conflicted["resolving"])
    permissions = (await in_process_reconciler.store.agents.get(3)).spec.permissions
    assert permissions
    assert permissions.deny == ("WebFetch",)


async def test_through_relay_and_command_line_a_conflict_is_given_away_and_its_resolution_lands(
    lead: Lead, repository: Path
) -> None:
    ids = await lead.run(ONE, TWO)
    merge = forkjoin(repository, "merge", *ids, "--on-conflict", "agent", check=False)
    assert merge.returncode == 1
    assert "a2  conflicts in shared.txt; a3 resolves it\n" in merge.stdout
    await lead.results("a3")
    assert ids_of(await lead.call("merge_worktree", ids=["a3"]), "merged") == ["a3", "a2"]
    assert (repository / "shared.txt").read_text() == "1\n2\n"
    check_sound(repository)
