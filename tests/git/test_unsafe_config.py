"""Entries of a git configuration that nobody trusts are overridden."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.error import CallerError, GitError
from forkjoin.core.trust_records import Trust, Trusted
from forkjoin.git import git as asked
from forkjoin.git import git_process
from forkjoin.git.git_config import GIT_CONFIG, find_warnings, trust_existing_entries
from forkjoin.git.repository import read_checkout
from forkjoin.git.unsafe_config import ConfigEntry, find_overrides, parse_listing
from support.branches import commit, put_counting_git
from support.harness import git

CLEAN = ConfigEntry("local", "filter.x.clean", "run me")
NO_LISTING = Trusted()


def told(environment: dict[str, str]) -> dict[str, str]:
    """Return the entries that an environment sets, by key."""
    count = int(environment.get("GIT_CONFIG_COUNT", 0))
    return {environment[f"GIT_CONFIG_KEY_{n}"]: environment[f"GIT_CONFIG_VALUE_{n}"] for n in range(count)}


@pytest.mark.parametrize(
    "entry",
    [
        ConfigEntry("global", "filter.lfs.clean", "git-lfs clean -- %f"),
        ConfigEntry("system", "merge.x.driver", "mergiraf"),
        ConfigEntry("global", "core.sshcommand", "ssh -v"),
    ],
)
def test_what_is_in_the_users_own_configuration_is_run(entry: ConfigEntry) -> None:
    assert find_overrides([entry], NO_LISTING) == ({}, [])


def test_what_was_trusted_is_run_and_nothing_else_of_that_name() -> None:
    trusted = Trusted(frozenset({CLEAN.digest}))
    assert find_overrides([CLEAN], trusted) == ({}, [])
    changed = ConfigEntry("local", "filter.x.clean", "run me; and me")
    environment, keys = find_overrides([CLEAN, changed], trusted)
    assert (told(environment), keys) == ({"filter.x.clean": "run me"}, ["filter.x.clean"])


def test_a_filter_of_nobodys_is_none_and_not_required() -> None:
    required = {"filter.x.clean": "", "filter.x.required": "false"}
    assert told(find_overrides([CLEAN], NO_LISTING)[0]) == required


def test_a_filter_that_is_overridden_for_the_repository_is_the_users_own() -> None:
    lfs = ConfigEntry("global", "filter.lfs.smudge", "git-lfs smudge -- %f")
    taken = ConfigEntry("worktree", "filter.lfs.smudge", "run me")
    assert told(find_overrides([lfs, taken], NO_LISTING)[0]) == {"filter.lfs.smudge": lfs.value}


@pytest.mark.parametrize(
    "key", ["core.sshcommand", "credential.https://x.helper", "remote.o.promisor", "url.a.insteadof"]
)
def test_nothing_missing_is_fetched_by_what_nobody_trusts(key: str) -> None:
    assert find_overrides([ConfigEntry("local", key, "x")], NO_LISTING) == ({"GIT_NO_LAZY_FETCH": "1"}, [key])


def test_a_hook_in_the_configuration_is_off() -> None:
    assert told(find_overrides([ConfigEntry("local", "hook.x.command", "run me")], NO_LISTING)[0]) == {
        "hook.x.enabled": "false"
    }


def test_more_than_an_environment_holds_is_refused_in_words() -> None:
    with pytest.raises(CallerError, match="more commands than forkjoin can override"):
        find_overrides([ConfigEntry("local", f"filter.{n}.clean", "x") for n in range(10_000)], NO_LISTING)


def test_a_listing_is_read_whatever_its_names_and_values_are() -> None:
    assert parse_listing("local\0core.bare\nfalse\0local\0user.flag\0global\0include.path\n~/x\0") == [
        ConfigEntry("local", "core.bare", "false"),
        ConfigEntry("local", "user.flag", ""),
        ConfigEntry("global", "include.path", "~/x"),
    ]
    assert parse_listing("local\0filter.a=b.clean\ntwo\nlines\0") == [
        ConfigEntry("local", "filter.a=b.clean", "two\nlines")
    ]


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


async def test_a_worktrees_own_configuration_counts_there(repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "linked"
    git(repository, "worktree", "add", "-q", "--detach", str(path))
    git(repository, "config", "extensions.worktreeConfig", "true")
    git(path, "config", "--worktree", "filter.x.clean", f"touch {tmp_path}/told; cat")
    (path / ".gitattributes").write_text("* filter=x\n")
    await asked.output(path, "add", ".")
    assert not (tmp_path / "told").exists()
    git(path, "add", "--renormalize", ".")
    assert (tmp_path / "told").exists(), "the filter does work"


async def test_what_a_new_project_has_is_its_persons_and_is_remembered(repository: Path, tmp_path: Path) -> None:
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
async def test_a_damaged_record_of_what_is_trusted_trusts_nothing(
    repository: Path, tmp_path: Path, damage: bytes
) -> None:
    common_dir = str(repository / ".git")
    trust = Trust(tmp_path / "trust")
    git(repository, "config", "filter.x.clean", "tr a-z A-Z")
    GIT_CONFIG.use_trust(trust)
    await trust_existing_entries(common_dir)
    assert await find_warnings(common_dir) == []
    trust.file(common_dir).write_bytes(damage)
    await trust_existing_entries(common_dir)
    assert "filter.x.clean" in (await find_warnings(common_dir))[0]


async def test_a_configuration_without_end_is_refused_in_words(repository: Path) -> None:
    with (repository / ".git" / "config").open("a") as config:
        config.write("[x]\n" + "a = b\n" * 200_000)
    with pytest.raises(CallerError, match="is larger than 1024 KB"):
        await asked.output(repository, "status")


async def test_a_configuration_that_never_ends_is_given_up(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (repository / ".git" / "config").open("a") as config:
        config.write(f"[include]\npath = {tmp_path}/pipe\n")
    monkeypatch.setattr(git_process, "_IDLE_TIMEOUT_S", 0.2)
    with pytest.raises(GitError, match="hung"):
        await asked.output(repository, "status")


async def test_a_repository_whose_configuration_is_broken_is_refused_in_words(repository: Path) -> None:
    (repository / ".git" / "config").write_text("[broken\n")
    with pytest.raises(CallerError, match=r"git will not use the repository .*bad config line 1"):
        await read_checkout(repository)


async def test_with_a_merge_driver_of_nobodys_git_merges_as_it_does_itself(repository: Path, tmp_path: Path) -> None:
    (repository / ".git" / "info" / "attributes").write_text("* merge=x\n")
    git(repository, "config", "merge.x.driver", f"touch {tmp_path}/told; true")
    base = git(repository, "rev-parse", "HEAD")
    ours = commit(repository, {"shared.txt": "ONE\ntwo\nthree\n"})
    git(repository, "switch", "-qc", "theirs", base)
    theirs = commit(repository, {"shared.txt": "one\ntwo\nTHREE\n"})
    clash = commit(repository, {"shared.txt": "1\ntwo\nthree\n"})
    tree = await asked.output(repository, "merge-tree", "--write-tree", ours, theirs)
    assert git(repository, "show", f"{tree}:shared.txt") == "ONE\ntwo\nTHREE"
    assert (await asked.run(repository, "merge-tree", "--write-tree", ours, clash))[0] == 1
    assert not (tmp_path / "told").exists()


@pytest.fixture(autouse=True)
def no_trust() -> Iterator[None]:
    """Reset the records of trust before and after each test."""
    GIT_CONFIG.use_trust(None)
    yield
    GIT_CONFIG.use_trust(None)
