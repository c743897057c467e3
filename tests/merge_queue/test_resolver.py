"""The agents that resolve conflicts with on_conflict="agent": when they are spawned, and how."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from forkjoin.adapters import command
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.branches import commit
from support.harness import Lead, ToolRefusedError, forkjoin, git
from support.merges import check_sound, ids_of
from support.resolver_agent import COMMITTED, ONE, THREE, TWO, conflict, let_agents_resolve, merge_states, resolve_by


@pytest.fixture(autouse=True)
def _resolving(home: Home) -> None:
    let_agents_resolve(home)


async def test_another_target_or_later_work_gets_another_resolver(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    git(repository, "branch", "other")
    await conflict(quick_lead, ONE, TWO)

    async def merge(target: str, second: str = "a2") -> str:
        answer = await quick_lead.call("merge_worktree", ids=["a1", second], into=target, on_conflict="agent")
        resolving: str = answer["conflicted"][0]["resolving"]
        await quick_lead.results(resolving)
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
    ).dependencies.after == ()  # the earlier resolver works on an outdated commit


async def test_a_later_resolver_waits_for_earlier_resolvers_of_the_same_file(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path, home: Home
) -> None:
    await quick_lead.run(ONE, TWO, THREE)
    await quick_lead.call("merge_worktree", ids=["a1", "a2"], on_conflict="agent")
    await quick_lead.call("merge_worktree", ids=["a3"], on_conflict="agent")
    await quick_lead.results("a4", "a5")
    assert (await in_process_reconciler.store.agents.get(5)).dependencies.after == (4,)
    assert "from how the conflicts of a2 were resolved" in (home.state / "brief-a5").read_text()
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a4", "a5"]), "merged") == ["a4", "a2", "a5", "a3"]


async def test_a_resolver_that_contains_rejected_work_is_replaced(quick_lead: Lead) -> None:
    four, five = await conflict(quick_lead, ONE, TWO, THREE)
    await quick_lead.call("merge_worktree", ids=[four], verify="test 1 = $(cat shared.txt)")
    assert await merge_states(quick_lead, four) == ["rejected"]
    (conflicted,) = (await quick_lead.call("merge_worktree", ids=["a3"], on_conflict="agent"))["conflicted"]
    assert conflicted["resolving"] == "a6"
    assert five == "a5"


async def test_a_conflict_has_one_resolver_until_that_resolver_fails(quick_lead: Lead, home: Home) -> None:
    resolve_by(home, "until [ -e $FORKJOIN_HOME/go ]; do sleep 0.02; done; . $FORKJOIN_HOME/then.sh")
    (home.state / "then.sh").write_text("exit 1")
    ids = await quick_lead.run(ONE, TWO)

    async def merge() -> str:
        answer = await quick_lead.call("merge_worktree", ids=ids, on_conflict="agent")
        resolving: str = answer["conflicted"][0]["resolving"]
        return resolving

    assert [await merge(), await merge()] == ["a3", "a3"]
    (home.state / "go").touch()
    await quick_lead.results("a3")
    (home.state / "then.sh").write_text(COMMITTED)
    assert await merge() == "a4"
    assert (await quick_lead.results("a4"))[0]["state"] == "succeeded"
    assert await merge() == "a4"


async def test_a_rejected_resolver_is_followed_by_another(quick_lead: Lead) -> None:
    await conflict(quick_lead, ONE, TWO)
    await quick_lead.call("merge_worktree", ids=["a3"], verify="false || test 1 = $(cat shared.txt)")
    assert await merge_states(quick_lead, "a3") == ["rejected"]
    (conflicted,) = (await quick_lead.call("merge_worktree", ids=["a2"], on_conflict="agent"))["conflicted"]
    assert conflicted["resolving"] == "a4"
    await quick_lead.results("a4")
    answer = await quick_lead.call("merge_worktree", ids=["a3", "a4", "a2"])
    assert (ids_of(answer, "merged"), answer["skipped"]) == (["a3", "a2", "a4"], [])


async def test_the_conflict_preview_omits_a_running_resolver_and_its_agent(quick_lead: Lead, home: Home) -> None:
    resolve_by(home, "sleep 1000")
    ids = await quick_lead.run(ONE, TWO)
    await quick_lead.call("merge_worktree", ids=ids, on_conflict="agent")
    await quick_lead.until("a3", state="running")
    answer = await quick_lead.call("check_conflicts", ids=["a2", "a3"])
    assert [one["between"] for one in answer["conflicts"]] == [["a2", "main"]]
    await quick_lead.call("stop_agents", ids=["a3"])


def _account(_environment: Mapping[str, str]) -> str:
    return "of the merging lead"


async def test_a_resolver_gets_the_options_of_its_agent_and_the_account_of_the_merging_lead(
    quick_lead: Lead, in_process_reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quick_lead.run(ONE)
    await quick_lead.run(TWO, priority=7, timeout_minutes=9, verify="test -e shared.txt", paths=["x"], base="HEAD")
    monkeypatch.setattr(command, "account", _account)
    await quick_lead.call("merge_worktree", ids=["a1", "a2"], on_conflict="agent")
    agent = await in_process_reconciler.store.agents.get(3)
    assert agent.account == "of the merging lead"
    spec = agent.spec
    assert (spec.agent, spec.priority, spec.timeout_minutes, spec.verify) == ("sh", 7, 9, "test -e shared.txt")
    assert (spec.base, agent.conflict.agent, agent.lead) == (
        None,
        2,
        (await in_process_reconciler.store.agents.get(2)).lead,
    )


async def test_a_dry_run_with_resolvers_is_refused(quick_lead: Lead) -> None:
    await quick_lead.run(ONE)
    refusal = await quick_lead.refusal("merge_worktree", ids=["a1"], on_conflict="agent", dry_run=True)
    assert "a dry run changes nothing" in refusal


async def test_a_conflict_is_only_reported_by_default(quick_lead: Lead, in_process_reconciler: Reconciler) -> None:
    ids = await quick_lead.run(ONE, TWO)
    (conflicted,) = (await quick_lead.call("merge_worktree", ids=ids))["conflicted"]
    assert "resolving" not in conflicted
    assert len(await in_process_reconciler.store.agents.page(1, everything=True)) == 2


async def test_the_merge_is_reported_though_no_resolver_can_be_spawned(
    quick_lead: Lead, in_process_reconciler: Reconciler, repository: Path
) -> None:
    (repository / "forkjoin.toml").write_text("ports = 1000\n")
    forkjoin(repository, "trust", "--yes")
    ids = await quick_lead.run(ONE, TWO)
    with pytest.raises(ToolRefusedError):
        while True:
            await quick_lead.run("true")
    answer = await quick_lead.call("merge_worktree", ids=ids, on_conflict="agent")
    assert ids_of(answer, "merged") == ["a1"]
    assert answer["note"].startswith("No agent was spawned for the conflicts. No 1000 ports in a row are free")


async def test_a_resolver_gets_the_permissions_of_its_agent(
    quick_lead: Lead, in_process_reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "KEEPS_PERMISSIONS", True)
    await quick_lead.run(ONE)
    await quick_lead.run(TWO, permissions={"deny": ["WebFetch"]})
    (conflicted,) = (await quick_lead.call("merge_worktree", ids=["a1", "a2"], on_conflict="agent"))["conflicted"]
    await quick_lead.results(conflicted["resolving"])
    permissions = (await in_process_reconciler.store.agents.get(3)).spec.permissions
    assert permissions
    assert permissions.deny == ("WebFetch",)


async def test_a_conflict_is_resolved_through_relay_and_command_line(lead: Lead, repository: Path) -> None:
    ids = await lead.run(ONE, TWO)
    merge = forkjoin(repository, "merge", *ids, "--on-conflict", "agent", check=False)
    assert merge.returncode == 1
    assert "a2  conflicts in shared.txt; a3 resolves it\n" in merge.stdout
    await lead.results("a3")
    assert ids_of(await lead.call("merge_worktree", ids=["a3"]), "merged") == ["a3", "a2"]
    assert (repository / "shared.txt").read_text() == "1\n2\n"
    check_sound(repository)
