"""Changes in shared configuration and hooks, which an agent's result reports."""

import json
import stat
import time
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.harness import (
    forkjoin,
    git,
    kill_daemon,
    lead_of,
    limit,
    open_lead,
    open_lead_in_memory,
    open_reconciler_in_memory,
    until,
)

HOOKS = '"$(git rev-parse --path-format=absolute --git-common-dir)/hooks"'


def config_warnings_of(result: dict[str, list[str]]) -> list[str]:
    """Return the warnings about changed configuration."""
    return [warning for warning in result["warnings"] if " changed while " in warning]


async def test_the_result_reports_changed_configuration_and_a_planted_hook(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        plant = f"mkdir -p {HOOKS}; echo evil > {HOOKS}/post-checkout; git config user.name Claude"
        (first,) = await lead.run(plant)
        (result,) = await lead.results(first)
        (second,) = await lead.run("git config branch.feature.remote origin")
        (other,) = await lead.results(second)
    warnings = config_warnings_of(result)
    assert "config: user.name = Claude" in warnings[0]
    assert "hooks/post-checkout: added" in warnings[1]
    assert all("while a1 ran" in warning and "forkjoin trust" in warning for warning in warnings)
    assert config_warnings_of(other) == []
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (home.shared_config, *home.shared_config.rglob("*"))}
    assert modes == {0o700, 0o600}


async def test_the_result_reports_changes_by_setup_and_verify(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        (first,) = await lead.run("true", verify="git config core.fsmonitor evil")
        (result,) = await lead.results(first)
    assert "core.fsmonitor = evil" in str(config_warnings_of(result))


async def test_changes_of_the_users_own_configuration_are_reported_and_the_surplus_is_counted(
    repository: Path, home: Home
) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        evil = "git config --global user.email evil@example.com"
        (first,) = await lead.run(f"{evil}; for n in 1 2 3 4 5 6 7 8; do git config --global user.n$n log; done")
        (result,) = await lead.results(first)
    assert ".gitconfig: user.email = evil@example.com (was: test@example.com)" in str(config_warnings_of(result))
    assert "… and 1 more such changes; forkjoin trust shows those of the repository" in result["warnings"]


async def test_changes_between_attempts_are_not_reported(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("true")
        git(repository, "config", "alias.mine", "log")
        (second,) = await lead.run("true")
        (result,) = await lead.results(second)
    assert config_warnings_of(result) == []


async def test_the_result_reports_changes_of_earlier_attempts(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(home, rest_s=1000)
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (first,) = await lead.spawn("test -e x.txt || { touch x.txt; git config alias.evil log; exit 75; }")
        await lead.until(first, state="paused")
        git(repository, "config", "alias.mine", "log")
        later = time.time() + 3000
        monkeypatch.setattr(time, "time", lambda: later)
        reconciler.store.changes.announce()
        (result,) = await lead.results(first)
    assert "alias.evil" in str(config_warnings_of(result))
    assert "alias.mine" not in str(config_warnings_of(result))


async def test_the_result_reports_changes_from_before_the_daemon_was_killed(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    done, go = tmp_path / "done", tmp_path / "go"
    async with open_lead(repository) as lead:
        task = f"git config alias.evil log; touch {done}; until test -e {go}; do sleep 0.02; done"
        (first,) = await lead.spawn(task)
        await until(done.exists)
        kill_daemon(repository, home)
        await lead.call("list_agents")
        go.touch()
        (result,) = await lead.results(first)
    assert "alias.evil" in str(config_warnings_of(result))
    assert [file.name for file in home.shared_config.rglob("*.json")] == ["accepted.json"]


async def test_a_damaged_record_of_accepted_configuration_is_reported_together_with_changes(
    repository: Path, home: Home
) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("true")
        (record,) = home.shared_config.rglob("accepted.json")
        record.write_text('{"config": [420')
        (second,) = await lead.run("git config user.name Claude; echo mine > mine")
        warnings = (await lead.results(second))[0]["warnings"]
        found = json.loads(forkjoin(repository, "doctor", "--json", check=False).stdout)
        assert forkjoin(repository, "trust", "--show", check=False).returncode == 1
        assert "damaged" in forkjoin(repository, "trust", "--restore", "--yes", check=False).stderr
        forkjoin(repository, "trust", "--yes")
        (third,) = await lead.run("git config user.name Claudine")
        after = (await lead.results(third))[0]["warnings"]
    assert "user.name = Claude" in str(warnings)
    assert [f"{record} is damaged" in warning for warning in warnings].count(True) == 1
    (found_change,) = [finding for finding in found if finding["what"] == "shared config"]
    assert (found_change["ok"], "is damaged" in found_change["found"]) == (False, True)
    assert ("damaged" in str(after), "user.name = Claudine" in str(after)) == (False, True)


async def test_the_result_reports_a_damaged_snapshot(repository: Path, home: Home, tmp_path: Path) -> None:
    go, texts = tmp_path / "go", ("", "[]", '{"attempt": 1, "snapshot": {"config": 7}, "found": []}')
    async with open_lead_in_memory(home, repository) as lead:
        ids = await lead.spawn(*[f"until test -e {go}; do sleep 0.02; done" for _ in texts])
        for id_, text in zip(ids, texts, strict=True):
            await lead.until(id_, state="running")
            (record,) = home.shared_config.rglob(f"{id_}.json")
            record.write_text(text)
        go.touch()
        results = await lead.results(*ids)
    for id_, result in zip(ids, results, strict=True):
        words = f"can't tell all that changed in shared configuration and hooks while {id_} ran"
        assert words in str(result["warnings"])
