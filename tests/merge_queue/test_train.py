"""Branches are verified together, in their order; the one that breaks it is named and the others land."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import commit, contents
from support.harness import Lead, git
from support.merges import check_sound, ids_of


def landed(repository: Path) -> list[str]:
    """Who has landed, in that order."""
    messages = git(
        repository,
        "log",
        "--reverse",
        "--first-parent",
        "--merges",
        "--format=%(trailers:key=Forkjoin-Agent,valueonly)",
    )
    return messages.split()


class Counted:
    """A verify that leaves a line at each run: which of the files were there."""

    def __init__(self, home: Home, command: str) -> None:
        self._log = home.state / "runs"
        self.command = f"ls >> {self._log}; echo . >> {self._log}; {command}"

    def runs(self) -> int:
        return self._log.read_text().split().count(".") if self._log.exists() else 0


async def test_those_that_pass_together_are_verified_once(near_lead: Lead, repository: Path, home: Home) -> None:
    ids = await near_lead.run(*(f"echo > f{n}" for n in range(9)))
    verify = Counted(home, "true")
    assert ids_of(await near_lead.call("merge_worktree", ids=ids, verify=verify.command), "merged") == ids
    assert verify.runs() == 1
    assert landed(repository) == ids
    check_sound(repository)


@pytest.mark.parametrize("bad", [0, 4, 8])
async def test_one_that_breaks_it_is_rejected_and_the_others_land(
    near_lead: Lead, repository: Path, home: Home, bad: int
) -> None:
    ids = await near_lead.run(*(f"echo > f{n}" for n in range(9)))
    verify = Counted(home, f"test ! -e f{bad} || {{ echo f{bad} is bad; exit 7; }}")
    answer = await near_lead.call("merge_worktree", ids=ids, verify=verify.command)
    others = [one for one in ids if one != ids[bad]]
    assert ids_of(answer, "merged") == landed(repository) == others
    (rejected,) = answer["rejected"]
    assert rejected["id"] == ids[bad]
    assert rejected["why"].startswith("verify: exit 7")
    assert rejected["why"].endswith(f"f{bad} is bad")
    assert verify.runs() <= 6  # ⌈log2 9⌉ + 2
    check_sound(repository)


async def test_where_most_break_it_they_are_verified_in_ever_smaller_numbers(
    near_lead: Lead, repository: Path, home: Home
) -> None:
    ids = await near_lead.run(*(f"echo > f{n}" for n in range(9)))
    verify = Counted(home, "! ls f*")
    answer = await near_lead.call("merge_worktree", ids=ids, verify=verify.command)
    assert (ids_of(answer, "rejected"), answer["merged"]) == (ids, [])
    assert verify.runs() <= 9 + 2 * 6


async def test_what_a_target_fails_by_itself_is_nobodys_fault_and_nothing_lands(
    near_lead: Lead, repository: Path
) -> None:
    ids = await near_lead.run("echo > one", "echo > two")
    before = git(repository, "rev-parse", "main")
    refused = await near_lead.refusal("merge_worktree", ids=ids, verify="echo the tests are broken; false")
    assert "verify fails on main itself, without any of these branches, so nothing was merged" in refused
    assert "the tests are broken" in refused
    assert git(repository, "rev-parse", "main") == before
    assert [(await near_lead.call("get_result", id=one))["merge"] for one in ids] == ["unmerged", "unmerged"]


async def test_what_mends_a_target_lands(near_lead: Lead, repository: Path, home: Home) -> None:
    ids = await near_lead.run("echo > one", "echo > mended", "echo > three")
    answer = await near_lead.call("merge_worktree", ids=ids, verify="test -e mended")
    assert ids_of(answer, "merged") == ids


async def test_one_that_conflicts_with_one_that_is_rejected_lands_in_its_place(
    near_lead: Lead, repository: Path
) -> None:
    ids = await near_lead.run("echo bad > shared.txt", "echo good > shared.txt", "echo > three")
    answer = await near_lead.call("merge_worktree", ids=ids, verify="! grep bad shared.txt")
    assert ids_of(answer, "rejected") == ids[:1]
    assert landed(repository) == [ids[2], ids[1]]
    assert (repository / "shared.txt").read_text() == "good\n"


async def test_one_that_conflicts_is_tried_once_more_after_the_others(near_lead: Lead, repository: Path) -> None:
    (first,) = await near_lead.run("echo agents > shared.txt")
    branch = (await near_lead.call("get_result", id=first))["branch"]
    commit(repository, {"shared.txt": "a person's\n"})
    resolves = f"git merge -q --no-edit -X theirs {branch}"
    (second,) = await near_lead.run(resolves)
    answer = await near_lead.call("merge_worktree", ids=[first, second])
    assert ids_of(answer, "merged") == [second]
    assert answer["skipped"] == [{"id": first, "why": "merged before"}]


# -- after one another


async def follow(lead: Lead, *tasks: str) -> list[str]:
    """Agents each of which comes after the one before it, and starts from its work; their ids."""
    ids: list[str] = []
    for task in tasks:
        ids += await lead.run(task, after=ids[-1:])
    return ids


async def test_none_lands_before_what_it_was_built_on(near_lead: Lead, repository: Path) -> None:
    first, second, third = await follow(near_lead, "echo > one", "echo > two", "echo > three")
    (other,) = await near_lead.run("echo > four")
    answer = await near_lead.call("merge_worktree", ids=[third, other, second, first])
    assert ids_of(answer, "merged") == landed(repository) == [other, first, second, third]


async def test_one_whose_ground_is_rejected_is_skipped(near_lead: Lead, repository: Path) -> None:
    first, second = await follow(near_lead, "echo > bad", "rm bad; echo > good")
    (other,) = await near_lead.run("echo > other")
    answer = await near_lead.call("merge_worktree", ids=[first, second, other], verify="test -e good || test ! -e bad")
    assert landed(repository) == [first, second, other], "together they pass"
    first, second = await follow(near_lead, "echo > worse", "echo > three")
    answer = await near_lead.call("merge_worktree", ids=[first, second], verify="test ! -e worse")
    assert ids_of(answer, "rejected") == [first]
    assert answer["skipped"] == [{"id": second, "why": f"it has the work of {first}, which was not merged"}]


async def test_what_is_rejected_does_not_come_with_its_grandchild(near_lead: Lead, repository: Path) -> None:
    first, second, third = await follow(near_lead, "echo > bad", "echo > two", "rm bad; echo > three")
    (other,) = await near_lead.run("echo > worse")
    answer = await near_lead.call(
        "merge_worktree", ids=[first, second, third, other], verify="test ! -e bad && test ! -e worse"
    )
    assert (answer["merged"], ids_of(answer, "rejected")) == ([], [first, other])
    assert ids_of(answer, "skipped") == [second, third]
    assert not (repository / "two").exists()


async def test_squashed_what_was_built_on_another_lands_behind_it_and_later_too(
    near_lead: Lead, repository: Path
) -> None:
    first, second, third = await follow(near_lead, "echo 1 > new", "echo 2 > new", "echo 3 > new; echo > more")
    answer = await near_lead.call("merge_worktree", ids=[first, second], strategy="squash")
    assert ids_of(answer, "merged") == [first, second]
    answer = await near_lead.call("merge_worktree", ids=[third], strategy="squash")
    assert ids_of(answer, "merged") == [third], answer
    assert (repository / "new").read_text() == "3\n"
    assert git(repository, "rev-list", "--count", "main") == "4"


async def test_one_whose_ground_conflicts_is_skipped(near_lead: Lead, repository: Path) -> None:
    first, second = await follow(near_lead, "echo 1 > shared.txt", "echo > two")
    commit(repository, {"shared.txt": "a person's\n"})
    answer = await near_lead.call("merge_worktree", ids=[first, second])
    assert (ids_of(answer, "conflicted"), ids_of(answer, "skipped"), answer["merged"]) == ([first], [second], [])


async def test_one_whose_ground_is_not_named_is_skipped(near_lead: Lead, repository: Path) -> None:
    first, second = await follow(near_lead, "echo > one", "echo > two")
    answer = await near_lead.call("merge_worktree", ids=[second])
    assert "which is not in main: name that agent too" in answer["skipped"][0]["why"]
    await near_lead.call("merge_worktree", ids=[first])
    assert ids_of(await near_lead.call("merge_worktree", ids=[second]), "merged") == [second]
    assert sorted(contents(repository)) == ["README.md", "one", "shared.txt", "two"]


# -- the target itself


async def test_nobody_is_rejected_where_what_has_passed_on_the_target_fails_there_by_now(
    near_lead: Lead, home: Home
) -> None:
    first, second = await near_lead.run("echo > one", "echo > two")
    verify = f"test ! -e {home.state}/registry-is-down"
    await near_lead.call("merge_worktree", ids=[first], verify=verify)
    (home.state / "registry-is-down").touch()
    assert "verify fails on main itself" in await near_lead.refusal("merge_worktree", ids=[second], verify=verify)
