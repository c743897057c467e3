"""Wrecked worktrees: the result is right, the user's checkout is unchanged, and removal works."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import everything
from support.harness import Lead, git, open_lead_in_memory, until

#: The agent's script, the expected text in its result, and the files that a merge brings into the target.
WRECKS: list[tuple[str, str, str, set[str]]] = [
    ("deletes .git", "rm .git", "removed .git", {"done.txt", "loose.txt"}),
    ("deletes the folder", 'rm -rf "$PWD"', "removed its worktree", {"done.txt"}),
    ("deletes its branch", "git update-ref -d HEAD", "branch was gone", {"done.txt", "loose.txt"}),
    ("switches branch", "git switch -qc other", "worked off its branch", {"done.txt", "loose.txt"}),
    ("detaches", "git switch -q --detach", "worked off its branch", {"done.txt", "loose.txt"}),
    (
        "rewrites history",
        "git commit -q --amend -m other",
        "1 uncommitted path was committed",
        {"done.txt", "loose.txt"},
    ),
    ("goes back", "git reset -q --soft HEAD~1", "2 uncommitted paths were", {"done.txt", "loose.txt"}),
    (
        "leaves a lock",
        'touch "$(git rev-parse --git-dir)/index.lock"',
        "1 uncommitted path was",
        {"done.txt", "loose.txt"},
    ),
    ("breaks the index", 'echo x > "$(git rev-parse --git-dir)/index"', "index", {"done.txt", "loose.txt"}),
    ("forbids folders", "mkdir -p a/b; touch a/b/c; chmod 0 a/b; chmod 0 a", "committed", {"done.txt", "loose.txt"}),
    (
        "makes it huge",
        "mkdir h; cd h; seq 1500 | split -l 1 -a 4; cd ..",
        "uncommitted paths were",
        {"done.txt", "loose.txt"},
    ),
    (
        "makes a link of it",
        'cd ..; mv "$FORKJOIN_WORKTREE" "$FORKJOIN_WORKTREE-x"; ln -s / "$FORKJOIN_WORKTREE"',
        "removed its worktree",
        {"done.txt"},
    ),
    (
        "starts another",
        "rm .git; git init -q; git add .; git commit -qm own",
        "replaced .git",
        {"done.txt", "loose.txt"},
    ),
]


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


@pytest.mark.parametrize(("script", "says", "lands"), [w[1:] for w in WRECKS], ids=[w[0] for w in WRECKS])
async def test_the_intact_part_of_a_wrecked_worktree_is_kept_and_merged(
    near: Lead, repository: Path, home: Home, script: str, says: str, lands: set[str]
) -> None:
    before = everything(repository)
    work = "echo done > done.txt; git add done.txt; git commit -qm done; echo loose > loose.txt"
    (first,) = await near.run(f"{work}\n{script}", verify="test -e README.md" if "loose.txt" in lands else None)
    result = await near.call("get_result", id=first)
    assert result["state"] == "succeeded"
    assert says in " ".join(result["warnings"])
    after = everything(repository)
    assert {key: after[key] for key in ("HEAD", "index", "stash", "files", "locks")} == {
        key: before[key] for key in ("HEAD", "index", "stash", "files", "locks")
    }
    await near.call("read_diff", id=first)
    assert [agent["id"] for agent in (await near.call("merge_worktree", ids=[first]))["merged"]] == [first]
    assert lands <= set(git(repository, "ls-files").split())
    assert ("loose.txt" in git(repository, "ls-files")) == ("loose.txt" in lands)
    assert git(repository, "status", "--porcelain") == ""
    await near.call("remove_worktrees", ids=[first], discard_unmerged=True)
    assert not list(home.worktrees.glob("*/a1-*[!x]"))
    assert len(git(repository, "worktree", "list").splitlines()) == 1


async def test_verify_does_not_follow_a_symlink_in_place_of_the_worktree(near: Lead, repository: Path) -> None:
    script = f'cd ..; rm -rf "$FORKJOIN_WORKTREE"; ln -s {repository} "$FORKJOIN_WORKTREE"'
    (first,) = await near.run(script, verify="touch trespass")
    result = await near.call("get_result", id=first)
    assert (result["state"], result["verify"]) == ("failed", "failed")
    assert "removed its worktree" in result["verify_output"]
    assert not (repository / "trespass").exists()


async def test_a_diff_of_a_running_agent_does_not_follow_its_changed_gitfile(
    near: Lead, repository: Path, home: Home, tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    filter_ = f"git -C {evil} config filter.x.clean 'touch {tmp_path}/told; cat'"
    make = f"git init -q {evil}; {filter_}; echo '* filter=x' > {evil}/.git/info/attributes; echo y > .git-new"
    wait = f"touch {home.state}/up; until test -e {home.state}/go; do sleep 0.02; done"
    script = f"{make}; echo y >> shared.txt; echo gitdir: {evil}/.git > .git; {wait}"
    (first,) = await near.spawn(script)
    await until((home.state / "up").exists)
    assert "+y" in await near.call("read_diff", id=first)
    (home.state / "go").touch()
    await near.call("wait_agents", ids=[first])
    assert not (tmp_path / "told").exists()


async def test_a_folder_of_worktrees_that_is_a_symlink_is_refused_and_nothing_is_written_there(
    near: Lead, repository: Path, home: Home, tmp_path: Path
) -> None:
    before = everything(repository)
    (tmp_path / "outside").mkdir()
    home.worktrees.rmdir()
    home.worktrees.symlink_to(tmp_path / "outside")
    (first,) = await near.run("true")
    assert "is behind a symlink" in (await near.call("get_result", id=first))["error"]
    assert list((tmp_path / "outside").iterdir()) == []
    assert everything(repository) == before


@pytest.mark.parametrize(
    "wreck",
    [
        "mkfifo info/pipe && mv info/pipe info/exclude",
        "echo '[' >> config",
        "git config extensions.no x; git config core.repositoryFormatVersion 1",
    ],
)
async def test_agents_are_listed_and_stopped_though_git_can_not_read_their_repository(
    near_lead: Lead, repository: Path, wreck: str
) -> None:
    (agent,) = await near_lead.spawn(f'cd "$(git rev-parse --git-common-dir)" && {wreck}; touch ready; exec sleep 600')
    await until((repository / ".git" / "ready").exists)
    assert (await near_lead.listed(agent))["state"] == "running"
    assert "git failed: " in await near_lead.refusal("read_diff", id=agent)
    (stopped,) = (await near_lead.call("stop_agents", ids=[agent]))["agents"]
    assert stopped["state"] in ("stopped", "failed")
