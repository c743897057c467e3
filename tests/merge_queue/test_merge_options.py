"""Options of a merge: the strategy, failed agents, and protected targets."""

from pathlib import Path

from forkjoin.core.paths import Home
from support.harness import Lead, git, open_lead_in_memory
from support.merges import check_sound, ids_of


def add_settings(home: Home, text: str) -> None:
    """Add a section to the settings."""
    home.config_file.write_text(f"{home.config_file.read_text()}\n{text}\n")


async def test_squash_makes_one_commit_per_agent_on_the_target(quick_lead: Lead, repository: Path) -> None:
    commits = "echo {0} > {0}; git add .; git commit -qm part; echo more >> {0}; git commit -qam rest"
    ids = await quick_lead.run(commits.format("one"), commits.format("two"))
    answer = await quick_lead.call("merge_worktree", ids=ids, strategy="squash")
    assert ids_of(answer, "merged") == ids
    log = git(repository, "log", "--format=%p %s", "-2", "main").splitlines()
    assert [line.split(" ")[1] for line in log] == [
        "echo-two-two-git-add-git-commit:",
        "echo-one-one-git-add-git-commit:",
    ]
    assert git(repository, "log", "-1", "--format=%(trailers:key=Forkjoin-Agent,valueonly)", "main") == ids[1]
    assert git(repository, "rev-list", "--count", "main") == "3"
    assert (repository / "two").read_text() == "two\nmore\n"
    check_sound(repository)
    answer = await quick_lead.call("merge_worktree", ids=ids, strategy="squash")
    assert [one["why"] for one in answer["skipped"]] == ["merged before", "merged before"]
    tip = git(repository, "rev-parse", (await quick_lead.call("get_result", id=ids[0]))["branch"])
    removed = await quick_lead.call("remove_worktrees", ids=ids)
    assert ids_of(removed, "removed") == ids
    assert git(repository, "rev-parse", removed["removed"][0]["kept_as"]) == tip


async def test_a_squashed_branch_with_later_commits_is_unmerged(quick_lead: Lead, repository: Path) -> None:
    (one,) = await quick_lead.run("echo > one")
    await quick_lead.call("merge_worktree", ids=[one], strategy="squash")
    branch = (await quick_lead.call("get_result", id=one))["branch"]
    later = git(repository, "commit-tree", "-m", "later", "-p", branch, f"{branch}^{{tree}}")
    git(repository, "update-ref", f"refs/heads/{branch}", later)
    assert "Unmerged work" in await quick_lead.refusal("remove_worktrees", ids=[one])


async def test_the_settings_decide_the_strategy_unless_the_call_does(repository: Path, home: Home) -> None:
    add_settings(home, '[merge]\nstrategy = "squash"')
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.run("echo > one", "echo > two")
        await lead.call("merge_worktree", ids=ids[:1])
        assert git(repository, "rev-list", "--merges", "--count", "main") == "0"
        await lead.call("merge_worktree", ids=ids[1:], strategy="merge")
        assert git(repository, "rev-list", "--merges", "--count", "main") == "1"


async def test_a_protected_branch_is_changed_only_with_confirm(repository: Path, home: Home) -> None:
    add_settings(home, '[merge]\nprotected = ["main", "release/*"]')
    git(repository, "branch", "release/1")
    git(repository, "branch", "side")
    before = git(repository, "rev-parse", "main")
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.run("echo > one")
        for into in (None, "main", "release/1"):
            refused = await lead.refusal("merge_worktree", ids=ids, into=into)
            assert "is protected" in refused
            assert "confirm=true" in refused
        assert "is protected" in await lead.refusal("undo_merge")
        assert git(repository, "rev-parse", "main") == before
        assert ids_of(await lead.call("merge_worktree", ids=ids, dry_run=True), "merged") == ids
        assert ids_of(await lead.call("merge_worktree", ids=ids, into="side"), "merged") == ids
        assert ids_of(await lead.call("merge_worktree", ids=ids, confirm=True), "merged") == ids
        assert (await lead.call("undo_merge", confirm=True))["commit"] == before


async def test_a_failed_agent_is_merged_only_with_include_failed(quick_lead: Lead, repository: Path) -> None:
    ids = await quick_lead.run("echo > one; exit 3", "echo > two")
    assert ids_of(await quick_lead.call("merge_worktree", ids=ids), "merged") == ids[1:]
    assert ids_of(await quick_lead.call("merge_worktree", ids=ids[:1], include_failed=True), "merged") == ids[:1]
    assert (repository / "one").exists()
