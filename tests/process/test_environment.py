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


def test_what_the_lead_has_is_there() -> None:
    lead = {"PATH": "/bin", "HOME": "/home/me", "ANTHROPIC_API_KEY": "key", "LANG": "C"}
    assert compose(lead, {}, {}).items() >= lead.items()


def test_what_is_the_lead_s_own_is_not() -> None:
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


def test_the_settings_add_to_what_the_lead_has_and_we_to_both() -> None:
    found = compose({"A": "lead", "B": "lead", "C": "lead"}, {"B": "settings", "C": "settings"}, {"C": "ours"})
    assert (found["A"], found["B"], found["C"]) == ("lead", "settings", "ours")


def test_the_settings_may_give_what_a_lead_may_not() -> None:
    assert compose({}, {"CLAUDE_CODE_MAX_OUTPUT_TOKENS": "1"}, {})["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "1"


def test_nothing_that_was_given_is_changed() -> None:
    lead, settings, ours = {"A": "1"}, {"B": "2"}, {"C": "3"}
    compose(lead, settings, ours)
    assert (lead, settings, ours) == ({"A": "1"}, {"B": "2"}, {"C": "3"})


def test_git_signs_nothing(repository: Path, user: Path) -> None:
    for name, value in {"commit.gpgSign": "true", "tag.gpgSign": "true", "gpg.program": "false"}.items():
        git(user, "config", "--global", name, value)
    calm = compose(os.environ, {}, {})
    assert run_git(repository, os.environ, "commit", "--allow-empty", "-m", "signed").returncode
    assert not run_git(repository, calm, "commit", "--allow-empty", "-m", "not signed").returncode
    assert not run_git(repository, calm, "tag", "-m", "not signed", "v1").returncode
    assert git(repository, "log", "-1", "--format=%s %G?") == "not signed N"


def test_git_opens_no_editor(repository: Path, tmp_path: Path) -> None:
    lead = {**os.environ, "EDITOR": f"touch {tmp_path}/opened; false", "VISUAL": f"touch {tmp_path}/opened; false"}
    calm = compose(lead, {}, {})
    assert run_git(repository, calm, "commit", "--amend", "--allow-empty").returncode == 0
    assert run_git(repository, calm, "rebase", "-i", "--root").returncode == 0
    assert not (tmp_path / "opened").exists()


def test_git_asks_nobody_for_a_password(repository: Path, user: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script = tmp_path / "ask"
    script.write_text(f"#!/bin/sh\ntouch '{asked}'\necho secret\n")
    script.chmod(0o700)
    git(user, "config", "--global", "core.askPass", str(script))
    lead = {**os.environ, "SSH_ASKPASS": str(script), "GIT_ASKPASS": str(script), "DISPLAY": ":0"}
    calm = compose(lead, {}, {})
    done = run_git(repository, calm, "credential", "fill", stdin="protocol=https\nhost=example.invalid\n\n")
    assert done.returncode
    assert "terminal prompts disabled" in done.stderr
    assert not asked.exists()
    assert calm["SSH_ASKPASS_REQUIRE"] == "never"


def test_git_starts_no_maintenance(repository: Path) -> None:
    calm = compose(os.environ, {}, {})
    for name, value in {"gc.auto": "0", "maintenance.auto": "false"}.items():
        assert run_git(repository, calm, "config", name).stdout.strip() == value


def test_the_person_s_own_configuration_stays_in_force(repository: Path) -> None:
    assert run_git(repository, compose(os.environ, {}, {}), "config", "user.email").stdout.strip() == "test@example.com"


def test_a_repository_adds_before_the_settings_and_may_name_what_is_known() -> None:
    wanted = {"URL": "http://localhost:$PORT/${HOME}", "B": "wanted", "PORT": "wanted", "X": "$$5 $unknown $TOKEN"}
    lead = {"HOME": "/me", "B": "lead", "FORKJOIN_TOKEN": "x"}
    found = compose(lead, {"B": "settings"}, {"PORT": "20000"}, wanted=wanted)
    assert (found["URL"], found["B"], found["PORT"]) == ("http://localhost:20000//me", "settings", "20000")
    assert found["X"] == "$5 $unknown $TOKEN"


def test_git_ignores_what_it_is_told_to_in_this_environment_alone(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "ignore").write_text("/x\n")
    (repository / "x").touch()
    told = compose(os.environ, {}, {}, ignore=tmp_path / "ignore")
    assert run_git(repository, told, "status", "--porcelain").stdout == ""
    assert run_git(repository, told, "config", "commit.gpgSign").stdout == "false\n"
    assert run_git(repository, compose(os.environ, {}, {}), "status", "--porcelain").stdout == "?? x\n"
