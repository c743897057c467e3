"""A call of git uses the worktree it was made in, despite a changed configuration or `.git`."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forkjoin.git.git_folder import find_common_dir
from forkjoin.git.repository import read_checkout
from forkjoin.git.worktrees import worktree
from support.autocommits import leave, leave_twice
from support.branches import Fork, blob, commit, contents, make_fork
from support.harness import git
from support.target_moves import AFTER, Target, make_target


def set_work_tree(to: str) -> Callable[[Path], None]:
    def meddle(repository: Path) -> None:
        git(repository, "config", "core.worktree", to)

    return meddle


def set_work_tree_of_worktrees(repository: Path) -> None:
    git(repository, "config", "extensions.worktreeConfig", "true")
    for folder in (repository / ".git", *(repository / ".git" / "worktrees").iterdir()):
        (folder / "config.worktree").write_text("[core]\n\tworktree = ../../..\n")


def call_it_bare(repository: Path) -> None:
    git(repository, "config", "core.bare", "true")


MEDDLING = [
    *(set_work_tree("../.."), set_work_tree("/nowhere"), set_work_tree("nowhere/at/all"), call_it_bare),
    set_work_tree_of_worktrees,
]


@contextmanager
def meddled(repository: Path, meddle: Callable[[Path], None]) -> Generator[None]:
    """Change the configuration temporarily. A plain git may fail meanwhile."""
    before = (repository / ".git" / "config").read_bytes()
    meddle(repository)
    yield
    (repository / ".git" / "config").write_bytes(before)


@pytest.fixture
async def linked(repository: Path) -> Fork:
    return await make_fork(repository)


@pytest.mark.parametrize("meddle", MEDDLING)
async def test_a_target_moves_in_its_own_checkout_despite_a_changed_configuration(
    linked: Fork, meddle: Callable[[Path], None]
) -> None:
    target = make_target(linked.repository)
    around = set(linked.repository.parent.iterdir())
    with meddled(linked.repository, meddle):
        assert await target.land() == []
    assert target.status() == []
    assert contents(linked.repository) == AFTER
    assert set(linked.repository.parent.iterdir()) == around


@pytest.mark.parametrize("meddle", MEDDLING)
async def test_uncommitted_work_is_read_from_the_agents_worktree_despite_a_changed_configuration(
    linked: Fork, meddle: Callable[[Path], None]
) -> None:
    done = commit(linked.path, {"done": "x"})
    (linked.path / "loose").write_text("y")
    with meddled(linked.repository, meddle):
        left = await leave(linked)
        assert (await leave(linked)).tip == left.tip
    assert blob(linked.repository, linked.branch, "loose") == b"y"
    assert git(linked.repository, "rev-parse", f"{left.tip}^") == done


@pytest.mark.parametrize("meddle", MEDDLING)
async def test_the_state_of_a_checkout_is_read_despite_a_changed_configuration(
    linked: Fork, meddle: Callable[[Path], None]
) -> None:
    repository = linked.repository
    (repository / "folder").mkdir()
    before = (
        await read_checkout(repository / "folder", check_dirty=True),
        await read_checkout(linked.path, check_dirty=True),
    )
    meddle(repository)
    assert (
        await read_checkout(repository / "folder", check_dirty=True),
        await read_checkout(linked.path, check_dirty=True),
    ) == before
    assert before[0].top == str(repository)


@pytest.mark.parametrize("meddle", MEDDLING)
async def test_a_worktree_is_made_at_its_path_despite_a_changed_configuration(
    linked: Fork, tmp_path: Path, meddle: Callable[[Path], None]
) -> None:
    path = tmp_path / "another"
    with meddled(linked.repository, meddle):
        await worktree.make(linked.common_dir, path, "forkjoin/a2-new", linked.base, "a2 of /somewhere")
    assert contents(path) == contents(linked.repository)


async def test_a_worktree_that_an_agent_redirects_to_another_repository_stays_in_its_own(
    linked: Fork, tmp_path: Path
) -> None:
    git(linked.repository, "clone", "-q", ".", str(tmp_path / "other"))
    before = git(tmp_path / "other", "for-each-ref")
    (linked.path / "loose").write_text("y")
    (linked.folder / "commondir").write_text(f"{tmp_path}/other/.git\n")
    left = await leave(linked)
    assert "pointed the git folder" in left.warnings[0]
    assert (await leave(linked)).tip == left.tip
    assert blob(linked.repository, linked.branch, "loose") == b"y"
    assert git(tmp_path / "other", "for-each-ref") == before


# -- what a repository, or its place, may be called


async def test_refs_with_ambiguous_names_do_not_change_what_is_read(repository: Path) -> None:
    before = await read_checkout(repository, check_dirty=True)
    for ref in (
        "refs/tags/HEAD",
        "refs/heads/HEAD",
        "refs/heads/refs/heads/HEAD",
        "refs/tags/main",
        "refs/tags/refs/heads/main",
    ):
        git(repository, "update-ref", ref, git(repository, "commit-tree", "-m", ref, "main^{tree}"))
    assert await read_checkout(repository, check_dirty=True) == before


@pytest.mark.parametrize("name", ["HEAD", "-x", "--all", "@", "forkjoin"])
async def test_a_checked_out_branch_with_an_odd_name_is_found(repository: Path, name: str) -> None:
    git(repository, "update-ref", f"refs/heads/{name}", "HEAD")
    git(repository, "symbolic-ref", "HEAD", f"refs/heads/{name}")
    found = await read_checkout(repository)
    assert (found.branch, found.head) == (f"refs/heads/{name}", git(repository, "rev-parse", "main"))


@pytest.mark.parametrize("name", ["new\nline", "end\n", " spaces ", "gitdir: x", 'quo"te\\'])
async def test_a_repository_in_a_folder_with_an_odd_name_works(user: Path, tmp_path: Path, name: str) -> None:
    repository = tmp_path / name / "repository"
    repository.mkdir(parents=True)
    git(repository, "init", "-q")
    commit(repository, {"README.md": "a repository\n", "shared.txt": "one\ntwo\nthree\n"})
    fork = await make_fork(repository)
    found = await read_checkout(repository, check_dirty=True)
    assert (found.common_dir, found.top) == (str(repository / ".git"), str(repository))
    assert (await read_checkout(fork.path)).top == str(fork.path)
    (fork.path / "loose").write_text("y")
    await leave_twice(fork)
    target: Target = make_target(repository)
    assert await target.land() == []
    assert contents(repository) == AFTER


async def test_a_folder_in_a_git_folder_has_no_worktree(repository: Path, tmp_path: Path) -> None:
    git(repository, "clone", "-q", ".", str(tmp_path / "library"))
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    inner = repository / ".git" / "modules" / "lib"
    for folder in (repository / ".git", repository / ".git" / "refs", inner, inner / "refs"):
        found = await read_checkout(folder, check_dirty=True)
        assert (found.top, found.branch, found.dirty) == (None, "refs/heads/main", False)


@pytest.mark.parametrize(
    "text", ["{0}", "gitdir:{0}", "Gitdir: {0}", " gitdir: {0}"], ids=["bare", "close", "capital", "space"]
)
def test_a_gitfile_that_git_would_not_follow_is_ignored(repository: Path, tmp_path: Path, text: str) -> None:
    (folder := tmp_path / "folder").mkdir()
    (folder / ".git").write_text(f"gitdir: {repository}/.git\r\n")
    assert find_common_dir(folder) == str(repository / ".git")
    (folder / ".git").write_text(text.format(f"{repository}/.git") + "\n")
    assert git(folder, "rev-parse", "--git-dir", check=False) == ""
    assert find_common_dir(folder) is None
