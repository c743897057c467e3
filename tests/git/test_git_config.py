"""The git configuration that applies to a call of git, and which of its entries are trusted."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError, GitError
from forkjoin.core.trust_records import Trust
from forkjoin.git import git as asked
from forkjoin.git import git_process
from forkjoin.git.git_config import GIT_CONFIG, find_warnings, trust_existing_entries
from forkjoin.git.repository import read_checkout
from support.branches import put_counting_git
from support.harness import git


@pytest.fixture(autouse=True)
def no_trust() -> Iterator[None]:
    """Reset the records of trust before and after each test."""
    GIT_CONFIG.use_trust(None)
    yield
    GIT_CONFIG.use_trust(None)


async def test_a_configuration_is_listed_once_until_it_changes(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = put_counting_git(tmp_path / "bin", monkeypatch, everything=True)
    GIT_CONFIG.use_trust(Trust(tmp_path / "trust"))

    async def listings() -> int:
        log.write_text("")
        for _ in range(3):
            await asked.output(repository, "rev-parse", "HEAD")
        return log.read_text().count("config --list")

    assert await listings() == 1
    assert await listings() == 0
    git(repository, "config", "filter.x.clean", "run me")
    log.write_text("")
    assert await listings() == 1
    git(repository, "config", "include.path", "/elsewhere")
    assert await listings() == 3


async def test_commands_in_a_worktrees_own_configuration_are_overridden(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "linked"
    git(repository, "worktree", "add", "-q", "--detach", str(path))
    git(repository, "config", "extensions.worktreeConfig", "true")
    git(path, "config", "--worktree", "filter.x.clean", f"touch {tmp_path}/told; cat")
    (path / ".gitattributes").write_text("* filter=x\n")
    await asked.output(path, "add", ".")
    assert not (tmp_path / "told").exists()
    git(path, "add", "--renormalize", ".")
    assert (tmp_path / "told").exists(), "the filter does work"


async def test_entries_of_a_new_project_are_trusted_and_later_ones_are_not(repository: Path, tmp_path: Path) -> None:
    common_dir = str(repository / ".git")
    trust = Trust(tmp_path / "trust")
    git(repository, "config", "filter.x.clean", "tr a-z A-Z")
    GIT_CONFIG.use_trust(trust)
    await trust_existing_entries(common_dir)
    git(repository, "config", "filter.y.clean", "tr a-z A-Z")
    for _ in range(2):
        await trust_existing_entries(common_dir)
        [warning] = await find_warnings(common_dir)
        assert "filter.y.clean" in warning
        assert "filter.x.clean" not in warning
        GIT_CONFIG.use_trust(trust)  # as after a restart
    assert trust.file(common_dir).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"commands": 5}', b"\xff\xfe"])
async def test_a_damaged_trust_record_trusts_nothing(repository: Path, tmp_path: Path, damage: bytes) -> None:
    common_dir = str(repository / ".git")
    trust = Trust(tmp_path / "trust")
    git(repository, "config", "filter.x.clean", "tr a-z A-Z")
    GIT_CONFIG.use_trust(trust)
    await trust_existing_entries(common_dir)
    assert await find_warnings(common_dir) == []
    trust.file(common_dir).write_bytes(damage)
    await trust_existing_entries(common_dir)
    assert "filter.x.clean" in (await find_warnings(common_dir))[0]


async def test_an_oversized_configuration_is_refused(repository: Path) -> None:
    with (repository / ".git" / "config").open("a") as config:
        config.write("[x]\n" + "a = b\n" * 200_000)
    with pytest.raises(CallerError, match="is larger than 1024 KB"):
        await asked.output(repository, "status")


async def test_a_configuration_that_includes_an_endless_pipe_is_given_up(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (repository / ".git" / "config").open("a") as config:
        config.write(f"[include]\npath = {tmp_path}/pipe\n")
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 0.2)
    with pytest.raises(GitError, match="hung"):
        await asked.output(repository, "status")


async def test_a_repository_with_a_broken_configuration_is_refused(repository: Path) -> None:
    (repository / ".git" / "config").write_text("[broken\n")
    with pytest.raises(CallerError, match=r"git will not use the repository .*bad config line 1"):
        await read_checkout(repository)
