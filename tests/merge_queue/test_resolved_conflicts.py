"""Resolvers' work: what counts as resolved, and its merge together with the agent whose conflict it resolves."""

from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.branches import commit
from support.harness import Lead, git
from support.merges import check_sound, ids_of
from support.resolver_agent import (
    BOTH,
    COMMITTED,
    ONE,
    THREE,
    TWO,
    conflict,
    let_agents_resolve,
    merge_states,
    parents,
    resolve_by,
)


@pytest.fixture(autouse=True)
def _resolving(home: Home) -> None:
    let_agents_resolve(home)


# -- what counts as resolved


@pytest.mark.parametrize(
    "script",
    [
        COMMITTED,
        f"{BOTH}; git add shared.txt",
        BOTH,
        "git checkout -q --ours shared.txt; git add shared.txt",
        f"{BOTH}; git commit -qam 'in words of its own'; echo > uncommitted",
    ],
)
async def test_an_unfinished_but_resolved_merge_is_committed_as_a_merge(
    quick_lead: Lead, repository: Path, home: Home, script: str
) -> None:
    resolve_by(home, script)
    (resolver,) = await conflict(quick_lead, ONE, TWO)
    result = await quick_lead.call("get_result", id=resolver)
    assert result["state"] == "succeeded"
    merge = f"{result['branch']}{'^' if 'uncommitted' in script else ''}"
    assert (
        parents(repository, merge)
        == git(repository, "rev-parse", "main", "forkjoin/a2-echo-2-shared-txt-second").split()
    )
    expected = "1" if "--ours" in script else "1\n2"
    assert git(repository, "show", f"{result['branch']}:shared.txt") == expected


_OURS = "git checkout -q --ours shared.txt"


@pytest.mark.parametrize(
    ("script", "warning"),
    [
        (
            "git merge --abort; git merge -q -s ours --no-edit $(cat $FORKJOIN_HOME/theirs)",
            "All that a2 changed is as on the other side, in: new.txt, shared.txt.",
        ),
        (f"{COMMITTED}; git rm -q new.txt; git commit -qm without", "It lacks files that a2 added: new.txt."),
        (
            "git checkout -q --theirs shared.txt; git rm -qf old.txt; git add .; git commit -q --no-edit",
            "All that the branch that it should be merged into changed is as on the other side, in: old.txt, shared",
        ),
        (
            f"{BOTH}; git rm -qf old.txt; git add .",
            "It lacks files that the branch that it should be merged into added",
        ),
        (COMMITTED, None),
        (f"{BOTH}; git mv new.txt moved.txt; git add .; git commit -q --no-edit", None),
        (f"{_OURS}; git add .; git commit -q --no-edit", None),
    ],
    ids=["strategy-ours", "file-of-theirs", "theirs-alone", "file-of-ours", "both", "moved", "ours-in-one-file"],
)
async def test_a_resolution_that_drops_the_changes_of_a_side_gets_a_warning(
    quick_lead: Lead, home: Home, script: str, warning: str | None
) -> None:
    resolve_by(home, f"cat $(git rev-parse --git-path MERGE_HEAD) > $FORKJOIN_HOME/theirs; {script}")
    tasks = ("echo 1 > shared.txt; echo o > old.txt", "echo 2 > shared.txt; echo n > new.txt")
    (resolver,) = await conflict(quick_lead, *tasks)
    result = await quick_lead.call("get_result", id=resolver)
    assert result["state"] == "succeeded"
    warnings = [one for one in result.get("warnings", []) if one.startswith(("All that ", "It lacks files"))]
    assert [one.startswith(warning or "-") for one in warnings] == ([True] if warning else [])


CONFLICTS = "these files still conflict: shared.txt"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("true", CONFLICTS),
        ("echo more >> shared.txt", CONFLICTS),
        ("git add -A", CONFLICTS),
        ("git commit -qam done", CONFLICTS),
        ("git merge --abort; echo 1 2 > shared.txt", "the merge of"),
        ("git reset -q --hard MERGE_HEAD", "the commit merged into,"),
    ],
)
async def test_a_resolver_that_leaves_the_conflict_fails_and_names_the_files(
    quick_lead: Lead, repository: Path, home: Home, script: str, why: str
) -> None:
    resolve_by(home, script)
    (resolver,) = await conflict(quick_lead, ONE, TWO, verify=f"echo >> {home.state}/ran; test -e shared.txt")
    result = await quick_lead.call("get_result", id=resolver)
    assert (result["state"], result["verify"]) == ("failed", "none")
    assert result["summary"].startswith(why)
    assert await merge_states(quick_lead, "a2") == ["conflicted"]


async def test_an_unchanged_binary_file_is_not_resolved(quick_lead: Lead, home: Home) -> None:
    resolve_by(home, "true")
    (resolver,) = await conflict(quick_lead, r"printf '\0001' > shared.txt", r"printf '\0002' > shared.txt")
    assert (await quick_lead.call("get_result", id=resolver))["summary"] == CONFLICTS


# -- the merge of a resolver


async def test_a_conflict_in_a_file_whose_name_is_not_utf_8_is_resolved(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    name = r"$(printf 'caf\351')"
    resolve_by(home, f'echo both > "{name}"')
    await conflict(quick_lead, f'echo 1 > "{name}"', f'echo 2 > "{name}"')
    found = await quick_lead.call("check_conflicts", ids=["a1", "a2"])
    assert {tuple(one["files"]) for one in found["conflicts"]} == {(r"caf\xe9",)}
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a3"]), "merged") == ["a3", "a2"]


@pytest.mark.parametrize("strategy", ["merge", "squash"])
async def test_a_resolver_and_its_agent_are_merged_undone_and_removed_together(
    quick_lead: Lead, repository: Path, strategy: str
) -> None:
    (resolver,) = await conflict(quick_lead, ONE, TWO)
    before = git(repository, "rev-parse", "main")
    answer = await quick_lead.call("merge_worktree", ids=[resolver], strategy=strategy)
    assert [(one["id"], one["commit"]) for one in answer["merged"]] == [
        (one, answer["commit"]) for one in (resolver, "a2")
    ]
    assert (repository / "shared.txt").read_text() == "1\n2\n"
    assert TWO in git(repository, "log", "-1", "--format=%b", "main")
    assert await merge_states(quick_lead, "a2", resolver) == ["merged", "merged"]
    undone = await quick_lead.call("undo_merge")
    assert (undone["undone"], undone["commit"]) == ([resolver, "a2"], before)
    assert await merge_states(quick_lead, "a2", resolver) == ["unmerged", "unmerged"]
    await quick_lead.call("merge_worktree", ids=[resolver], strategy=strategy)
    answer = await quick_lead.call("remove_worktrees", ids=["a2", resolver])
    assert [one.get("kept_as") is None for one in answer["removed"]] == [strategy == "merge"] * 2
    check_sound(repository)


@pytest.mark.parametrize("strategy", ["merge", "squash"])
@pytest.mark.parametrize("names", [["a2", "a3"], ["a3", "a2"]])
async def test_a_resolver_and_its_agent_can_be_named_in_one_merge(
    quick_lead: Lead, repository: Path, names: list[str], strategy: str
) -> None:
    await conflict(quick_lead, ONE, TWO)
    answer = await quick_lead.call("merge_worktree", ids=names, strategy=strategy)
    assert (ids_of(answer, "merged"), answer["conflicted"], answer["skipped"]) == (["a3", "a2"], [], [])
    answer = await quick_lead.call("merge_worktree", ids=names)
    assert {one["why"] for one in answer["skipped"]} == {"merged before"}
    again = await quick_lead.call("merge_worktree", ids=["a2"], strategy=strategy, on_conflict="agent")
    assert (again["conflicted"], again["skipped"]) == ([], [{"id": "a2", "why": "merged before"}])


async def test_a_squashed_agent_counts_as_merged_though_others_changed_the_file_since(
    quick_lead: Lead, repository: Path
) -> None:
    await quick_lead.run("echo 1 > shared.txt")
    await quick_lead.call("merge_worktree", ids=["a1"], strategy="squash")
    commit(repository, {"shared.txt": "other\n"})
    answer = await quick_lead.call("merge_worktree", ids=["a1"], strategy="squash")
    assert (answer["conflicted"], answer["skipped"]) == ([], [{"id": "a1", "why": "merged before"}])


async def test_a_resolver_that_a_person_merged_counts_as_merged_with_its_agent(
    quick_lead: Lead, repository: Path
) -> None:
    (resolver,) = await conflict(quick_lead, ONE, TWO)
    git(repository, "merge", "-q", (await quick_lead.call("get_result", id=resolver))["branch"])
    answer = await quick_lead.call("merge_worktree", ids=["a2", resolver])
    assert {one["id"]: one["why"] for one in answer["skipped"]} == dict.fromkeys(["a2", resolver], "merged before")
    assert await merge_states(quick_lead, "a2", resolver) == ["merged", "merged"]


async def test_an_agent_based_on_the_conflicting_work_is_merged_after_the_resolver(
    quick_lead: Lead, repository: Path
) -> None:
    ids = await quick_lead.run(ONE, TWO)
    (built_on,) = await quick_lead.run("echo > three", after=["a2"])
    answer = await quick_lead.call("merge_worktree", ids=ids, on_conflict="agent")
    (resolver,) = [one["resolving"] for one in answer["conflicted"]]
    await quick_lead.results(resolver)
    answer = await quick_lead.call("merge_worktree", ids=["a2", built_on, resolver])
    assert ids_of(answer, "merged") == [resolver, "a2", built_on]
    assert (repository / "three").exists()


async def test_a_resolver_that_breaks_verify_is_rejected_and_its_agent_skipped(
    quick_lead: Lead, repository: Path
) -> None:
    await conflict(quick_lead, ONE, TWO)
    before = git(repository, "rev-parse", "main")
    answer = await quick_lead.call("merge_worktree", ids=["a2", "a3"], verify="test $(wc -l < shared.txt) = 1")
    assert (ids_of(answer, "rejected"), git(repository, "rev-parse", "main")) == (["a3"], before)
    [skipped] = answer["skipped"]
    assert skipped["why"] == "a3 (resolve-echo-2-shared-txt-second), which resolves its conflict, was not merged"


async def test_two_conflicts_in_one_file_are_resolved_one_after_the_other(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    four, five = await conflict(quick_lead, ONE, TWO, THREE)
    brief = (home.state / f"brief-{five}").read_text()
    assert "The worktree starts from how the conflicts of a2 were resolved, if they were." in brief
    assert f"the task of a2, whose work is there already ---\n{TWO}" in brief
    answer = await quick_lead.call("merge_worktree", ids=[four, five])
    assert ids_of(answer, "merged") == [four, "a2", five, "a3"]
    assert (repository / "shared.txt").read_text() == "1\n2\n3\n"


async def test_resolvers_of_different_files_do_not_wait_for_each_other(
    quick_lead: Lead, in_process_reconciler: Reconciler
) -> None:
    both = "echo 1 > shared.txt; echo 1 > README.md"
    ids = await conflict(quick_lead, both, "echo 2 > shared.txt", "echo 2 > README.md")
    assert [
        agent.dependencies.after
        for agent in await in_process_reconciler.store.agents.get_all(int(one[1:]) for one in ids)
    ] == [(), ()]


async def test_a_resolver_that_conflicts_with_later_commits_gets_a_resolver_itself(
    quick_lead: Lead, repository: Path
) -> None:
    await conflict(quick_lead, ONE, TWO)
    commit(repository, {"shared.txt": "a person's\n"})
    answer = await quick_lead.call("merge_worktree", ids=["a3", "a2"], on_conflict="agent")
    assert [(one["id"], one["resolving"]) for one in answer["conflicted"]] == [("a3", "a4")]
    assert (await quick_lead.results("a4"))[0]["name"] == "resolve-echo-2-shared-txt-second-2"
    answer = await quick_lead.call("merge_worktree", ids=["a4"])
    assert ids_of(answer, "merged") == ["a4", "a3", "a2"]


async def test_a_resolver_does_not_bring_back_undone_work_that_is_not_named(quick_lead: Lead, repository: Path) -> None:
    (resolver,) = await conflict(quick_lead, ONE, TWO)
    await quick_lead.call("undo_merge")
    before = git(repository, "rev-parse", "main")
    [skipped] = (await quick_lead.call("merge_worktree", ids=[resolver]))["skipped"]
    assert (
        "bring back the work of a1 (echo-1-shared-txt-first), which the target no longer contains: merge that first"
        in skipped["why"]
    )
    assert git(repository, "rev-parse", "main") == before
    answer = await quick_lead.call("merge_worktree", ids=["a1", resolver])
    assert ids_of(answer, "merged") == ["a1", resolver, "a2"]
    assert (repository / "shared.txt").read_text() == "1\n2\n"


async def test_a_failed_resolver_can_be_merged_only_if_it_left_no_conflict(
    quick_lead: Lead, repository: Path, home: Home
) -> None:
    resolve_by(home, "git commit -qam marks; exit 1")
    (marked,) = await conflict(quick_lead, ONE, TWO)
    answer = await quick_lead.call("merge_worktree", ids=[marked], include_failed=True)
    [skipped] = answer["skipped"]
    assert skipped["why"] == "it did not resolve the conflict: these files still conflict: shared.txt"
    resolve_by(home, f"{COMMITTED}; exit 1")
    (conflicted,) = (await quick_lead.call("merge_worktree", ids=["a2"], on_conflict="agent"))["conflicted"]
    await quick_lead.results(conflicted["resolving"])
    answer = await quick_lead.call("merge_worktree", ids=[conflicted["resolving"]], include_failed=True)
    assert ids_of(answer, "merged") == [conflicted["resolving"], "a2"]


async def test_a_second_resolver_brings_the_agent_though_the_first_resolver_was_removed(
    quick_lead: Lead, repository: Path
) -> None:
    (middle,) = await conflict(quick_lead, ONE, TWO)
    commit(repository, {"shared.txt": "a person's\n"})
    await quick_lead.call("merge_worktree", ids=[middle], on_conflict="agent")
    await quick_lead.results("a4")
    await quick_lead.call("remove_worktrees", ids=[middle], discard_unmerged=True)
    assert ids_of(await quick_lead.call("merge_worktree", ids=["a4"]), "merged") == ["a4", "a2"]
