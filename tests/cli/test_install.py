"""forkjoin install and uninstall."""

import json
import os
import sys
from pathlib import Path

import pytest
from support.harness import forkjoin

RELAY = f"{sys.executable} -P -E -m forkjoin mcp"


@pytest.fixture
def claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a fake claude.

    It appends its arguments to the file `asked`, and exits with the code in the file `exit`.
    """
    folder = tmp_path / "claude"
    folder.mkdir()
    program = folder / "claude"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexit $(cat {folder}/exit)\n')
    program.chmod(0o755)
    (folder / "exit").write_text("0")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_forkjoin_is_registered_and_removed_by_claudes_own_command(claude: Path, tmp_path: Path) -> None:
    output = forkjoin(tmp_path, "install", "--yes").stdout
    assert output.startswith(f"claude mcp add --scope user forkjoin -- {RELAY}\n")
    server = json.loads(output.partition("other clients:\n")[2])["mcpServers"]["forkjoin"]
    assert [server["command"], *server["args"]] == RELAY.split()
    forkjoin(tmp_path, "uninstall", "--scope", "local", stdin="y\n")
    assert (claude / "asked").read_text().splitlines() == [
        f"mcp add --scope user forkjoin -- {RELAY}",
        "mcp remove --scope local forkjoin",
    ]


def test_install_runs_nothing_if_the_person_declines(claude: Path, tmp_path: Path) -> None:
    assert forkjoin(tmp_path, "install", stdin="n\n").stderr == "Not run.\n"
    assert not (claude / "asked").exists()


def test_install_without_a_terminal_names_the_option_that_does_not_ask(claude: Path, tmp_path: Path) -> None:
    done = forkjoin(tmp_path, "install", check=False)
    assert (done.returncode, "--yes" in done.stderr) == (1, True)
    assert not (claude / "asked").exists()


def test_install_reports_a_failing_claude_and_a_missing_one(
    claude: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claude / "exit").write_text("7")
    refused = forkjoin(tmp_path, "install", "--yes", check=False)
    assert (refused.returncode, "exit code 7" in refused.stderr) == (1, True)
    assert "run forkjoin uninstall first" in refused.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "claude is not in PATH" in forkjoin(tmp_path, "install", "--yes").stderr
