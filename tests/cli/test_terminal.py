"""No control character that an agent printed reaches the terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from forkjoin.cli.safe_output import escape_controls
from forkjoin.core.paths import Home
from hypothesis import given
from hypothesis import strategies as st
from support.fuzzing import fuzzed
from support.harness import forkjoin

#: Clears the screen, sets the title, moves the cursor, rings the bell, erases, and reverses the following text.
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\x08\x7f\u202eevil"
COMMANDS = [
    ("ps",),
    ("ps", "--json"),
    ("wait", "a1"),
    ("wait", "a1", "--json"),
    ("result", "a1"),
    ("result", "a1", "--full", "--json"),
    ("logs", "a1"),
    ("logs", "a1", "--tail", "3"),
    ("diff", "a1"),
    ("status",),
    ("merge", "a1"),
]


@given(st.text())
@fuzzed(200)
def test_escaped_text_contains_only_line_ends_tabs_and_printable_characters(text: str) -> None:
    shown = escape_controls(text)
    assert [letter for letter in shown if ord(letter) < 32 and letter not in "\n\t"] == []
    assert not set(shown) & {"\x7f", "\x9b", "\u202e", "\u2066"}
    shown.encode()


def test_text_without_control_characters_is_not_changed() -> None:
    text = "plain, ünïcödé, 🙂, tab\tand\nline"
    assert (escape_controls(text), escape_controls("a\r\nb")) == (text, "a\nb")


def _obeyed(output: bytes) -> set[str]:
    """Return the hostile text's control characters in some output, except colours."""
    text = output.decode()
    return {part for part in ("\x1b[2J", "\x1b]0", "\x07", "\x9b", "\x08", "\x7f", "\u202e") if part in text}


def _in_terminal(where: Path, *arguments: str) -> bytes:
    """Return what a command prints to a terminal."""
    leader, follower = pty.openpty()
    argv = [sys.executable, "-m", "forkjoin", *arguments]
    with subprocess.Popen(argv, cwd=where, stdin=follower, stdout=follower, stderr=follower):
        os.close(follower)
        output = b""
        try:
            while chunk := os.read(leader, 65536):
                output += chunk
        except OSError:  # the other end of the terminal is closed
            pass
    os.close(leader)
    return output


@pytest.fixture
def hostile(repository: Path, home: Home, tmp_path: Path) -> Path:
    """Return a repository in which an agent printed and wrote hostile text and failed."""
    (tmp_path / "hostile").write_bytes(f"{HOSTILE}\n".encode())
    task = f"cat {tmp_path}/hostile; cat {tmp_path}/hostile >&2; cat {tmp_path}/hostile > shown.txt; exit 3"
    forkjoin(repository, "spawn", task, "--name", "hostile")
    forkjoin(repository, "wait", check=False)
    return repository


def test_no_command_prints_control_characters_of_agents_on_a_terminal(hostile: Path) -> None:
    for command in COMMANDS:
        done = forkjoin(hostile, *command, check=False)
        assert _obeyed((done.stdout + done.stderr).encode()) == set(), command
    assert "\\u001b[2J" in forkjoin(hostile, "logs", "a1").stdout
    assert "\\u001b[2J" in forkjoin(hostile, "diff", "a1").stdout


def test_to_a_terminal_even_the_raw_log_and_errors_are_made_visible(hostile: Path) -> None:
    for command in (("logs", "a1", "--raw"), ("ps",), ("result", "a1"), ("result", HOSTILE), ("diff", "a1")):
        shown = _in_terminal(hostile, *command)
        assert _obeyed(shown) == set(), command
        assert b"evil" in shown or command == ("ps",), command


def test_the_raw_log_goes_into_a_pipe_as_it_was(hostile: Path) -> None:
    assert forkjoin(hostile, "logs", "a1", "--raw").stdout.startswith(HOSTILE)
