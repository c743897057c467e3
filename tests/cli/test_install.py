"""Registering with Claude Code: its own command is shown first, and run once the person ask_yes_no."""

import json
import os
import sys
from pathlib import Path

import pytest
from support.harness import forkjoin

RELAY = f"{sys.executable} -P -E -m forkjoin mcp"


@pytest.fixture
def claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A claude that notes what it is asked, and answers with the exit code in the file beside that."""
    folder = tmp_path / "claude"
    folder.mkdir()
    program = folder / "claude"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\nexit $(cat {folder}/exit)\n')
    program.chmod(0o755)
    (folder / "exit").write_text("0")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_it_is_registered_and_taken_out_again_by_claudes_own_command(claude: Path, tmp_path: Path) -> None:
    told = forkjoin(tmp_path, "install", "--yes").stdout
    assert told.startswith(f"claude mcp add --scope user forkjoin -- {RELAY}\n")
    server = json.loads(told.partition("other clients:\n")[2])["mcpServers"]["forkjoin"]
    assert [server["command"], *server["args"]] == RELAY.split()
    forkjoin(tmp_path, "uninstall", "--scope", "local", stdin="y\n")
    assert (claude / "asked").read_text().splitlines() == [
        f"mcp add --scope user forkjoin -- {RELAY}",
        "mcp remove --scope local forkjoin",
    ]


def test_nothing_is_run_that_the_person_does_not_want(claude: Path, tmp_path: Path) -> None:
    assert forkjoin(tmp_path, "install", stdin="n\n").stderr == "Not run.\n"
    assert not (claude / "asked").exists()


def test_where_nobody_can_be_asked_it_is_said_how_to_do_without(claude: Path, tmp_path: Path) -> None:
    done = forkjoin(tmp_path, "install", check=False)
    assert (done.returncode, "--yes" in done.stderr) == (1, True)
    assert not (claude / "asked").exists()


def test_a_claude_that_refuses_is_told_of_and_none_at_all_too(
    claude: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (claude / "exit").write_text("7")
    refused = forkjoin(tmp_path, "install", "--yes", check=False)
    assert (refused.returncode, "exit code 7" in refused.stderr) == (1, True)
    assert "run forkjoin uninstall first" in refused.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "claude is not in PATH" in forkjoin(tmp_path, "install", "--yes").stderr
