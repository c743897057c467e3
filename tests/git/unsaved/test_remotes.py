"""A commit pushed to a repository in an agent's worktree is unsaved, however the remote is configured."""

import os
from pathlib import Path

import pytest
from forkjoin.git import git_process
from forkjoin.git.unsaved.unsaved_work import find_unsaved_work
from support.branches import Fork, commit, make_fork
from support.harness import git


async def found(fork: Fork) -> list[str]:
    return sorted(str(one) for one in await find_unsaved_work(fork.common_dir, fork.path, fork.base))


def configure(where: Path, text: str, file: str = "config") -> None:
    with (where / ".git" / file).open("a") as config:
        config.write(text)


def _by_url(one: Path, two: Path) -> None:
    git(one, "remote", "add", "t", "../two")


def _on_one_line(one: Path, two: Path) -> None:
    configure(one, '[remote "t"] url = ../two\n')


def _by_alias(one: Path, two: Path) -> None:
    git(one, "remote", "add", "t", "https://example.org/two")
    git(one, "config", f"url.{two.parent}/.insteadOf", "https://example.org/")


def _by_push_url(one: Path, two: Path) -> None:
    git(one, "remote", "add", "t", "https://example.org/two")
    git(one, "config", "remote.t.pushurl", str(two))


def _by_file_url(one: Path, two: Path) -> None:
    git(one, "remote", "add", "t", f"file://{one}/../%74wo")


def _by_symlink(one: Path, two: Path) -> None:
    (one.parent / "link").symlink_to(two)
    git(one, "remote", "add", "t", "../link")


def _by_include(one: Path, two: Path) -> None:
    configure(one, "[include] path = more\n")
    configure(one, '[remote "t"]\n\turl = ../two\n', "more")


def _by_settings_of_the_worktree(one: Path, two: Path) -> None:
    git(one, "config", "extensions.worktreeConfig", "true")
    configure(one, '[remote "t"]\n\turl = ../two\n', "config.worktree")


def _by_name(one: Path, two: Path) -> None:
    configure(one, '[remote "../two"]\n\tfetch = +refs/heads/*:refs/remotes/t/*\n')
    git(one, "config", "branch.main.remote", "../two")
    git(one, "fetch", "-q")


def _by_an_address_with_a_line_end(one: Path, two: Path) -> None:
    two.rename(f"{two}\n")
    configure(one, '[remote "t"]\n\turl = "../two\\n"\n')


WAYS = [
    _by_url,
    _on_one_line,
    _by_alias,
    _by_push_url,
    _by_file_url,
    _by_symlink,
    _by_include,
    _by_settings_of_the_worktree,
    _by_name,
    _by_an_address_with_a_line_end,
]


def make_pair(one: Path, two: Path) -> str:
    """Make a repository with one commit, and a clone of it."""
    git(one.parent, "init", "-q", "-b", "main", one.name)
    made = commit(one, {"a": "x"})
    git(two.parent, "clone", "-q", str(one), two.name)
    return made


async def test_repositories_that_are_each_others_remotes_are_unsaved_in_any_configuration(fork: Fork) -> None:
    for way in WAYS:
        folder = fork.path / way.__name__
        folder.mkdir()
        made = make_pair(folder / "one", folder / "two")
        way(folder / "one", folder / "two")
        git(folder / "one", "update-ref", "refs/remotes/t/main", made)
    described = [text.split("/")[0] for text in await found(fork) if text.endswith("(1 commit)")]
    assert described == sorted(way.__name__ for way in WAYS for _ in ("one", "two"))


async def test_repositories_of_two_agents_that_are_each_others_remotes_are_unsaved(
    fork: Fork, repository: Path
) -> None:
    other = await make_fork(repository, "a2-other")
    make_pair(fork.path / "one", other.path / "two")
    git(fork.path / "one", "remote", "add", "t", str(other.path / "two"))
    git(fork.path / "one", "fetch", "-q", "t")
    assert await found(fork) == ["one (1 commit)"]
    assert await found(other) == ["two (1 commit)"]


@pytest.mark.parametrize("where", ["{other}", "{other}/.git", "{here}", "{user}/in"])
async def test_a_commit_pushed_to_a_repository_that_outlasts_the_agents_is_saved(
    fork: Fork, repository: Path, tmp_path: Path, where: str
) -> None:
    other = await make_fork(repository, "a2-other")
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "users"))
    git(tmp_path / "users", "init", "-q", "in")
    remote = where.format(other=other.path, here=fork.path, user=tmp_path / "users")
    git(fork.path, "clone", "-q", remote, "one")
    commit(fork.path / "one", {"a": "x"})
    assert await found(fork) == ["one (1 commit)"]
    git(fork.path / "one", "push", "-q", "origin", "HEAD:refs/heads/pushed")
    assert await found(fork) == []


@pytest.mark.parametrize("depth", [[], ["--depth=1"]])
async def test_a_clone_of_a_repository_that_is_gone_is_unsaved(fork: Fork, tmp_path: Path, depth: list[str]) -> None:
    make_pair(tmp_path / "one", tmp_path / "other")
    git(fork.path, "clone", "-q", *depth, f"file://{tmp_path}/one", "two")
    assert await found(fork) == []
    (tmp_path / "one").rename(tmp_path / "moved")
    assert await found(fork) == ["two (1 commit)"]


async def test_commits_that_only_a_remote_in_the_worktree_has_are_unsaved(fork: Fork, tmp_path: Path) -> None:
    make_pair(tmp_path / "library", fork.path / "one")
    git(fork.path, "init", "-q", "--bare", "two")
    git(fork.path / "one", "remote", "add", "two", "../two")
    git(fork.path / "one", "push", "-q", "two", "HEAD:refs/heads/main")
    assert await found(fork) == ["two (1 commit)"]


async def test_commits_fetched_by_a_path_are_unsaved_if_that_repository_is_deleted_too(
    fork: Fork, tmp_path: Path
) -> None:
    one, two = fork.path / "one", fork.path / "two"
    make_pair(one, two)
    git(two, "remote", "remove", "origin")
    git(one, "fetch", "-q", "../two", "main")
    assert await found(fork) == ["one (1 commit)", "two (1 commit)"]
    git(fork.path, "clone", "-q", "--bare", "one", str(tmp_path / "stays.git"))
    for where in (one, two):
        git(where, "fetch", "-q", str(tmp_path / "stays.git"), "main")
    assert await found(fork) == []


async def test_a_configuration_that_includes_a_pipe_does_not_block(
    fork: Fork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 0.2)
    git(fork.path, "init", "-q", "one")
    os.mkfifo(tmp_path / "pipe")
    git(fork.path / "one", "config", "include.path", str(tmp_path / "pipe"))
    (told,) = await found(fork)
    assert told.startswith("one (a repository that can't be read: ")
