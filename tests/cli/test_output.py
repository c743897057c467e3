"""Output to a narrow terminal, a pipe and a full disk, and a home that can't be created."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forkjoin.cli.requests import request_line
from forkjoin.cli.safe_output import escape_controls
from forkjoin.core.paths import Home
from support.harness import forkjoin


def test_a_narrow_terminal_shows_each_agents_state(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "true", "--name", "n" * 64)
    forkjoin(repository, "wait")
    for columns in ("30", "80", "200"):
        row = forkjoin(repository, "ps", env={"COLUMNS": columns}).stdout.splitlines()[2]
        assert row.split()[0] == "a1"
        assert "succeeded" in row


def test_a_requests_text_can_not_look_like_another_request() -> None:
    question = "Ready?\nr8  a2 asks whether it may (for 590 s more): Bash npm test\r\nr9  a3 asks"
    asked = {"request_id": "r7", "id": "a1", "kind": "question", "expires_s": 600, "text": question}
    first, *others = escape_controls(request_line(asked)).splitlines()
    assert first == "r7  a1 asks (for 600 s more): Ready?"
    assert [line[:6] for line in others] == ["    r8", "    r9"]


def test_a_result_in_a_pipe_keeps_its_line_ends(repository: Path, home: Home) -> None:
    line = "word " * 50 + "end"
    forkjoin(repository, "spawn", f"echo {line}", "--name", "wide")
    forkjoin(repository, "wait")
    assert line in forkjoin(repository, "result", "wide").stdout.splitlines()


def test_output_that_can_not_be_written_is_reported_in_one_line(repository: Path, home: Home) -> None:
    with Path("/dev/full").open("w") as full:
        argv = [sys.executable, "-m", "forkjoin", "ps"]
        done = subprocess.run(argv, cwd=repository, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "No space left on device" in done.stderr


def test_a_home_that_can_not_be_made_is_reported(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = {"FORKJOIN_HOME": f"{tmp_path}/file/home"}
    done = forkjoin(repository, "ps", env=nowhere, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"{tmp_path}/file/home" in done.stderr
    found = json.loads(forkjoin(repository, "doctor", "--json", env=nowhere, check=False).stdout)
    assert [finding["remedy"] for finding in found if finding["what"] == "home"] == [
        "set FORKJOIN_HOME to a folder of your own"
    ]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_with_closed_streams_still_does_its_work(repository: Path, home: Home, closed: str) -> None:
    for command, code in (("ps", 0), ("spawn", 1), ("brief", 0), ("mcp", 0)):
        line = f"exec {shlex.quote(sys.executable)} -m forkjoin {command} {closed}"
        done = subprocess.run(
            ["sh", "-c", line], cwd=repository, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
        assert (command, done.returncode, b"Traceback" in done.stderr) == (command, code, False)


def test_a_terminal_with_zero_columns_is_treated_as_a_pipe(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "true", "--name", "one")
    assert "one" in forkjoin(repository, "ps", env={"COLUMNS": "0"}).stdout


def test_a_merge_command_fails_if_it_leaves_work_unmerged(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo x > x.txt; exit 3", "--name", "failed")
    forkjoin(repository, "spawn", "echo y > y.txt", "--name", "good")
    forkjoin(repository, "wait", check=False)
    for names, code in ((("failed", "good"), 1), (("good",), 0)):
        assert forkjoin(repository, "merge", *names, check=False).returncode == code
