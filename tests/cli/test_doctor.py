"""forkjoin doctor and status."""

import json
from pathlib import Path
from typing import Any

import pytest
from forkjoin.cli import doctor
from forkjoin.cli.mcp_client import call_tool
from forkjoin.core.paths import Home
from forkjoin.process import cgroup_root
from forkjoin.store.damage_detection import set_aside_copies
from support.harness import forkjoin, git
from support.records import damage


def test_doctor_reports_what_enforces_each_limit(repository: Path, home: Home) -> None:
    (limits,) = [finding for finding in _all(repository) if finding["what"] == "limits"]
    held = {name: f"cgroup v{base.version}" for base in cgroup_root.find_cgroup_roots() for name in base.controllers}
    memory, processes = held.get("memory", "the watchdog"), held.get("pids", "the watchdog")
    assert f"2048 processes; enforced: memory by {memory}, processes by {processes}, processors by " in limits["found"]


def test_doctor_reports_the_limits_of_the_daemon_instead_of_its_own(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "memory.current").write_text("0\n")

    def folders(process: str) -> dict[str, str]:
        return {"": str(tmp_path)} if process == "4321" else {}

    def pid(home: Home) -> str:
        return "4321"

    monkeypatch.setattr(cgroup_root, "cgroups_of", folders)
    monkeypatch.setattr(doctor, "_daemon_pid", pid)
    (limits,) = [finding for finding in doctor.examine(home) if finding.what == "limits"]
    assert "per agent 1 GB memory" in limits.found


def test_doctor_reports_why_spawns_are_refused_and_accepts_a_bare_repository(
    repository: Path, home: Home, tmp_path: Path
) -> None:
    (repository / "forkjoin.toml").write_text("nonsense")
    found = {finding["what"]: finding for finding in _all(repository)}
    assert (found["trust"]["ok"], "forkjoin.toml" in found["trust"]["found"]) == (False, True)
    git(repository, "clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    found = {finding["what"]: finding for finding in _all(tmp_path / "bare")}
    assert (found["repository"]["ok"], found["repository"]["found"]) == (True, str(tmp_path / "bare"))


def _all(where: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(forkjoin(where, "doctor", "--json", check=False).stdout)
    return found


def _findings(where: Path) -> list[dict[str, Any]]:
    return [finding for finding in _all(where) if finding["what"] == "records"]


def test_damaged_records_are_reported_until_their_copy_is_removed(repository: Path, home: Home) -> None:
    forkjoin(repository, "ps")
    forkjoin(repository, "daemon", "stop")
    assert [finding["ok"] for finding in _findings(repository)] == [True]
    damage(home.records, "random")
    (finding,) = _findings(repository)
    assert not finding["ok"]
    assert "recovered" in finding["remedy"]
    (line,) = [line for line in forkjoin(repository, "status").stdout.splitlines() if line.startswith("trouble: ")]
    (copy,) = set_aside_copies(home.records)
    assert line.endswith(f"then remove {copy}")
    assert [finding["ok"] for finding in _findings(repository)] == [True, False]
    copy.unlink()
    assert [finding["ok"] for finding in _findings(repository)] == [True]


def test_the_status_names_agents_with_conflicting_work(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    answer: dict[str, Any] = call_tool("get_status") | {"conflicts": ["a1 and a2: shared.txt"]}

    def told(_: str) -> dict[str, Any]:
        return answer

    monkeypatch.setattr(doctor, "call_tool", told)
    doctor.status()
    assert capsys.readouterr().out.splitlines()[1:] == ["conflict: a1 and a2: shared.txt"]
