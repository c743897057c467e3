"""The merge train: branches are verified together, and the branch that breaks verify is rejected."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import commit, contents
from support.harness import Lead, git
from support.merges import check_sound, ids_of


def list_merged_agents(repository: Path) -> list[str]:
    """Return the ids of the agents whose merge commits are in the target, in order."""
    messages = git(
        repository,
        "log",
        "--reverse",
        "--first-parent",
        "--merges",
        "--format=%(trailers:key=Forkjoin-Agent,valueonly)",
    )
    return messages.split()


class CountedVerify:
    """A verify command that counts its runs."""

    def __init__(self, home: Home, command: str) -> None:
        self._log = home.state / "runs"
        self.command = f"ls >> {self._log}; echo . >> {self._log}; {command}"

    def runs(self) -> int:
        return self._log.read_text().split().count(".") if self._log.exists() else 0


async def test_branches_that_pass_together_are_verified_once(quick_lead: Lead, repository: Path, home: Home) -> None:
    ids = await quick_lead.run(*(f"echo > f{n}" for n in range(9)))
    verify = CountedVerify(home, "true")
    assert ids_of(await quick_lead.call("merge_worktree", ids=ids, verify=verify.command), "merged") == ids
    assert verify.runs() == 1
    assert list_merged_agents(repository) == ids
    check_sound(repository)


@pytest.mark.parametrize("bad", [0, 4, 8])
async def test_the_branch_that_breaks_verify_is_rejected_and_the_others_are_merged(
    quick_lead: Lead, repository: Path, home: Home, bad: int
) -> None:
    ids = await quick_lead.run(*(f"echo > f{n}" for n in range(9)))
    verify = CountedVerify(home, f"test ! -e f{bad} || {{ echo f{bad} is bad; exit 7; }}")
    answer = await quick_lead.call("merge_worktree", ids=ids, verify=verify.command)
    others = [one for one in ids if one != ids[bad]]
    assert ids_of(answer, "merged") == list_merged_agents(repository) == others
    (rejected,) = answer["rejected"]
    assert rejected["id"] == ids[bad]
    assert rejected["why"].startswith("verify: exit 7")
    assert rejected["why"].endswith(f"f{bad} is bad")
    assert verify.runs() <= 6  # ⌈log2 9⌉ + 2
    check_sound(repository)


async def test_batches_shrink_when_most_branches_break_verify(quick_lead: Lead, repository: Path, home: Home) -> None:
    ids = await quick_lead.run(*(f"echo > f{n}" for n in range(9)))
    verify = CountedVerify(home, "! ls f*")
    answer = await quick_lead.call("merge_worktree", ids=ids, verify=verify.command)
    assert (ids_of(answer, "rejected"), answer["merged"]) == (ids, [])
    assert verify.runs() <= 9 + 2 * 6


async def test_nothing_is_merged_if_verify_fails_on_the_target_itself(quick_lead: Lead, repository: Path) -> None:
    ids = await quick_lead.run("echo > one", "echo > two")
    before = git(repository, "rev-parse", "main")
    refused = await quick_lead.refusal("merge_worktree", ids=ids, verify="echo the tests are broken; false")
    assert "verify fails on main itself, without any of these branches, so nothing was merged" in refused
    assert "the tests are broken" in refused
    assert git(repository, "rev-parse", "main") == before
    assert [(await quick_lead.call("get_result", id=one))["merge"] for one in ids] == ["unmerged", "unmerged"]


async def test_a_branch_that_repairs_a_broken_target_is_merged(quick_lead: Lead, repository: Path, home: Home) -> None:
    ids = await quick_lead.run("echo > one", "echo > mended", "echo > three")
    answer = await quick_lead.call("merge_worktree", ids=ids, verify="test -e mended")
    assert ids_of(answer, "merged") == ids


async def test_a_branch_that_conflicts_only_with_a_rejected_branch_is_merged(
    quick_lead: Lead, repository: Path
) -> None:
    ids = await quick_lead.run("echo bad > shared.txt", "echo good > shared.txt", "echo > three")
    answer = await quick_lead.call("merge_worktree", ids=ids, verify="! grep bad shared.txt")
    assert ids_of(answer, "rejected") == ids[:1]
    assert list_merged_agents(repository) == [ids[2], ids[1]]
    assert (repository / "shared.txt").read_text() == "good\n"


async def test_a_conflicting_branch_is_tried_again_after_the_others(quick_lead: Lead, repository: Path) -> None:
    (first,) = await quick_lead.run("echo agents > shared.txt")
    branch = (await quick_lead.call("get_result", id=first))["branch"]
    commit(repository, {"shared.txt": "a person's\n"})
    resolves = f"git merge -q --no-edit -X theirs {branch}"
    (second,) = await quick_lead.run(resolves)
    answer = await quick_lead.call("merge_worktree", ids=[first, second])
    assert ids_of(answer, "merged") == [second]
    assert answer["skipped"] == [{"id": first, "why": "merged before"}]


# -- dependent agents


async def follow(lead: Lead, *tasks: str) -> list[str]:
    """Run agents each of which depends on the agent before it. Return their ids."""
    ids: list[str] = []
    for task in tasks:
        ids += await lead.run(task, after=ids[-1:])
    return ids


async def test_an_agent_is_merged_after_its_base_agents(quick_lead: Lead, repository: Path) -> None:
    first, second, third = await follow(quick_lead, "echo > one", "echo > two", "echo > three")
    (other,) = await quick_lead.run("echo > four")
    answer = await quick_lead.call("merge_worktree", ids=[third, other, second, first])
    assert ids_of(answer, "merged") == list_merged_agents(repository) == [other, first, second, third]


async def test_an_agent_is_skipped_when_its_base_agent_was_rejected(quick_lead: Lead, repository: Path) -> None:
    first, second = await follow(quick_lead, "echo > bad", "rm bad; echo > good")
    (other,) = await quick_lead.run("echo > other")
    answer = await quick_lead.call("merge_worktree", ids=[first, second, other], verify="test -e good || test ! -e bad")
    assert list_merged_agents(repository) == [first, second, other], "verify passes on all of them together"
    first, second = await follow(quick_lead, "echo > worse", "echo > three")
    answer = await quick_lead.call("merge_worktree", ids=[first, second], verify="test ! -e worse")
    assert ids_of(answer, "rejected") == [first]
    assert answer["skipped"] == [{"id": second, "why": f"it has the work of {first}, which was not merged"}]


async def test_rejected_work_does_not_come_with_an_agent_two_levels_up(quick_lead: Lead, repository: Path) -> None:
    first, second, third = await follow(quick_lead, "echo > bad", "echo > two", "rm bad; echo > three")
    (other,) = await quick_lead.run("echo > worse")
    answer = await quick_lead.call(
        "merge_worktree", ids=[first, second, third, other], verify="test ! -e bad && test ! -e worse"
    )
    assert (answer["merged"], ids_of(answer, "rejected")) == ([], [first, other])
    assert ids_of(answer, "skipped") == [second, third]
    assert not (repository / "two").exists()


async def test_dependent_agents_are_squashed_in_order_together_or_later(quick_lead: Lead, repository: Path) -> None:
    first, second, third = await follow(quick_lead, "echo 1 > new", "echo 2 > new", "echo 3 > new; echo > more")
    answer = await quick_lead.call("merge_worktree", ids=[first, second], strategy="squash")
    assert ids_of(answer, "merged") == [first, second]
    answer = await quick_lead.call("merge_worktree", ids=[third], strategy="squash")
    assert ids_of(answer, "merged") == [third], answer
    assert (repository / "new").read_text() == "3\n"
    assert git(repository, "rev-list", "--count", "main") == "4"


async def test_an_agent_is_skipped_when_its_base_agent_conflicts(quick_lead: Lead, repository: Path) -> None:
    first, second = await follow(quick_lead, "echo 1 > shared.txt", "echo > two")
    commit(repository, {"shared.txt": "a person's\n"})
    answer = await quick_lead.call("merge_worktree", ids=[first, second])
    assert (ids_of(answer, "conflicted"), ids_of(answer, "skipped"), answer["merged"]) == ([first], [second], [])


async def test_an_agent_is_skipped_when_its_base_agent_is_not_named(quick_lead: Lead, repository: Path) -> None:
    first, second = await follow(quick_lead, "echo > one", "echo > two")
    answer = await quick_lead.call("merge_worktree", ids=[second])
    assert "which is not in main: name that agent too" in answer["skipped"][0]["why"]
    await quick_lead.call("merge_worktree", ids=[first])
    assert ids_of(await quick_lead.call("merge_worktree", ids=[second]), "merged") == [second]
    assert sorted(contents(repository)) == ["README.md", "one", "shared.txt", "two"]


# -- the target itself


async def test_no_branch_is_rejected_if_verify_no_longer_passes_on_the_target(quick_lead: Lead, home: Home) -> None:
    first, second = await quick_lead.run("echo > one", "echo > two")
    verify = f"test ! -e {home.state}/registry-is-down"
    await quick_lead.call("merge_worktree", ids=[first], verify=verify)
    (home.state / "registry-is-down").touch()
    assert "verify fails on main itself" in await quick_lead.refusal("merge_worktree", ids=[second], verify=verify)
