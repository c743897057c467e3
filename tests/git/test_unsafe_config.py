"""Entries of a git configuration that nobody trusts are overridden."""

from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.trust_records import Trusted
from forkjoin.git import git as asked
from forkjoin.git.unsafe_config import ConfigEntry, find_overrides, parse_listing
from support.branches import commit
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
def test_commands_in_the_users_own_configuration_are_not_overridden(entry: ConfigEntry) -> None:
    assert find_overrides([entry], NO_LISTING) == ({}, [])


def test_a_trusted_command_replaces_an_untrusted_one_with_the_same_key() -> None:
    trusted = Trusted(frozenset({CLEAN.digest}))
    assert find_overrides([CLEAN], trusted) == ({}, [])
    changed = ConfigEntry("local", "filter.x.clean", "run me; and me")
    environment, keys = find_overrides([CLEAN, changed], trusted)
    assert (told(environment), keys) == ({"filter.x.clean": "run me"}, ["filter.x.clean"])


def test_an_untrusted_filter_is_empty_and_not_required() -> None:
    required = {"filter.x.clean": "", "filter.x.required": "false"}
    assert told(find_overrides([CLEAN], NO_LISTING)[0]) == required


def test_the_users_own_filter_replaces_the_repositorys() -> None:
    lfs = ConfigEntry("global", "filter.lfs.smudge", "git-lfs smudge -- %f")
    taken = ConfigEntry("worktree", "filter.lfs.smudge", "run me")
    assert told(find_overrides([lfs, taken], NO_LISTING)[0]) == {"filter.lfs.smudge": lfs.value}


@pytest.mark.parametrize(
    "key", ["core.sshcommand", "credential.https://x.helper", "remote.o.promisor", "url.a.insteadof"]
)
def test_untrusted_settings_of_fetches_switch_off_lazy_fetching(key: str) -> None:
    assert find_overrides([ConfigEntry("local", key, "x")], NO_LISTING) == ({"GIT_NO_LAZY_FETCH": "1"}, [key])


def test_an_untrusted_hook_in_the_configuration_is_disabled() -> None:
    assert told(find_overrides([ConfigEntry("local", "hook.x.command", "run me")], NO_LISTING)[0]) == {
        "hook.x.enabled": "false"
    }


def test_overrides_too_large_for_an_environment_are_refused() -> None:
    with pytest.raises(CallerError, match="more commands than forkjoin can override"):
        find_overrides([ConfigEntry("local", f"filter.{n}.clean", "x") for n in range(10_000)], NO_LISTING)


def test_a_listing_with_odd_names_and_values_is_parsed() -> None:
    assert parse_listing("local\0core.bare\nfalse\0local\0user.flag\0global\0include.path\n~/x\0") == [
        ConfigEntry("local", "core.bare", "false"),
        ConfigEntry("local", "user.flag", ""),
        ConfigEntry("global", "include.path", "~/x"),
    ]
    assert parse_listing("local\0filter.a=b.clean\ntwo\nlines\0") == [
        ConfigEntry("local", "filter.a=b.clean", "two\nlines")
    ]


async def test_an_untrusted_merge_driver_is_replaced_by_gits_text_merge(repository: Path, tmp_path: Path) -> None:
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
