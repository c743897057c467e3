"""The environment in which agents' programs run."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from forkjoin.process.environment import compose
from support.harness import git


def run_git(
    where: Path, environment: Mapping[str, str], *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    argv = ["git", "-C", str(where), *arguments]
    return subprocess.run(argv, env=environment, input=stdin, capture_output=True, text=True, check=False)


def test_the_environment_has_the_leads_variables() -> None:
    lead = {"PATH": "/bin", "HOME": "/home/me", "ANTHROPIC_API_KEY": "key", "LANG": "C"}
    assert compose(lead, {}, {}).items() >= lead.items()


def test_the_environment_has_no_reserved_variables_of_the_lead() -> None:
    own = {
        "CLAUDECODE": "1",
        "CLAUDE_CODE_ENTRYPOINT": "cli",
        "CLAUDE_CODE_SSE_PORT": "1",
        "CLAUDE_PROJECT_DIR": "/",
        "GIT_DIR": "/repository/.git",
        "GIT_INDEX_FILE": "index",
        "FORKJOIN_HOME": "/home",
        "FORKJOIN_MARK": "another",
        "FORKJOIN_KEEPER": "1",
        "FORKJOIN_TOKEN": "token",
    }
    assert not own.keys() & compose(own, {}, {}).keys()


def test_settings_override_the_lead_and_forkjoin_overrides_both() -> None:
    found = compose({"A": "lead", "B": "lead", "C": "lead"}, {"B": "settings", "C": "settings"}, {"C": "ours"})
    assert (found["A"], found["B"], found["C"]) == ("lead", "settings", "ours")


def test_settings_may_set_reserved_variables() -> None:
    assert compose({}, {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "1"}, {})["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "1"


def test_the_arguments_are_not_changed() -> None:
    lead, settings, ours = {"A": "1"}, {"B": "2"}, {"C": "3"}
    compose(lead, settings, ours)
    assert (lead, settings, ours) == ({"A": "1"}, {"B": "2"}, {"C": "3"})


def test_git_signs_nothing(repository: Path, user: Path) -> None:
    for name, value in {"commit.gpgSign": "true", "tag.gpgSign": "true", "gpg.program": "false"}.items():
        git(user, "config", "--global", name, value)
    composed = compose(os.environ, {}, {})
    assert run_git(repository, os.environ, "commit", "--allow-empty", "-m", "signed").returncode
    assert not run_git(repository, composed, "commit", "--allow-empty", "-m", "not signed").returncode
    assert not run_git(repository, composed, "tag", "-m", "not signed", "v1").returncode
    assert git(repository, "log", "-1", "--format=%s %G?") == "not signed N"


def test_git_opens_no_editor(repository: Path, tmp_path: Path) -> None:
    lead = {**os.environ, "EDITOR": f"touch {tmp_path}/opened; false", "VISUAL": f"touch {tmp_path}/opened; false"}
    composed = compose(lead, {}, {})
    assert run_git(repository, composed, "commit", "--amend", "--allow-empty").returncode == 0
    assert run_git(repository, composed, "rebase", "-i", "--root").returncode == 0
    assert not (tmp_path / "opened").exists()


def test_git_asks_for_no_password(repository: Path, user: Path, tmp_path: Path) -> None:
    prompted = tmp_path / "prompted"
    script = tmp_path / "ask"
    script.write_text(f"#!/bin/sh\ntouch '{prompted}'\necho secret\n")
    script.chmod(0o700)
    git(user, "config", "--global", "core.askPass", str(script))
    lead = {**os.environ, "SSH_ASKPASS": str(script), "GIT_ASKPASS": str(script), "DISPLAY": ":0"}
    composed = compose(lead, {}, {})
    done = run_git(repository, composed, "credential", "fill", stdin="protocol=https\nhost=example.invalid\n\n")
    assert done.returncode
    assert "terminal prompts disabled" in done.stderr
    assert not prompted.exists()
    assert composed["SSH_ASKPASS_REQUIRE"] == "never"


def test_git_starts_no_maintenance(repository: Path) -> None:
    composed = compose(os.environ, {}, {})
    for name, value in {"gc.auto": "0", "maintenance.auto": "false"}.items():
        assert run_git(repository, composed, "config", name).stdout.strip() == value


def test_the_users_git_configuration_still_applies(repository: Path) -> None:
    assert run_git(repository, compose(os.environ, {}, {}), "config", "user.email").stdout.strip() == "test@example.com"


def test_the_repositorys_variables_are_expanded_and_settings_override_them() -> None:
    wanted = {"URL": "http://localhost:$PORT/${HOME}", "B": "wanted", "PORT": "wanted", "X": "$$5 $unknown $TOKEN"}
    lead = {"HOME": "/me", "B": "lead", "FORKJOIN_TOKEN": "x"}
    found = compose(lead, {"B": "settings"}, {"PORT": "20000"}, wanted=wanted)
    assert (found["URL"], found["B"], found["PORT"]) == ("http://localhost:20000//me", "settings", "20000")
    assert found["X"] == "$5 $unknown $TOKEN"


def test_the_ignore_file_applies_only_in_this_environment(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "ignore").write_text("/x\n")
    (repository / "x").touch()
    composed = compose(os.environ, {}, {}, ignore=tmp_path / "ignore")
    assert run_git(repository, composed, "status", "--porcelain").stdout == ""
    assert run_git(repository, composed, "config", "commit.gpgSign").stdout == "false\n"
    assert run_git(repository, compose(os.environ, {}, {}), "status", "--porcelain").stdout == "?? x\n"
