"""forkjoin demo: what it prints, and the repository that it leaves."""

import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import processes_of
from forkjoin.demo.sample_repository import make_repository
from support.harness import GIVE_UP_S, forkjoin, git, running


def test_the_demo_merges_what_is_good_and_names_the_rest(tmp_path: Path) -> None:
    done = forkjoin(tmp_path, "demo", env={"COLUMNS": "120"})
    said = done.stdout
    folder = Path(re.findall(r"cd (\S+)/calc &&", said)[0])
    try:
        assert done.stderr == ""
        fates = dict(re.findall(r"^a\d +(\w+) +\w+ +(merged|conflicted|skipped) ", said, re.MULTILINE))
        assert fates == {
            "multiply": "merged",
            "divide": "merged",
            "tagline": "merged",
            "slogan": "conflicted",
            "power": "skipped",
        }
        assert git(folder / "calc", "status", "--porcelain") == ""
        assert {file.name for file in (folder / "calc" / "calc").glob("*.py")} >= {"multiply.py", "divide.py"}
        closer = forkjoin(folder / "calc", "result", "power", env={"FORKJOIN_HOME": str(folder / "home")}).stdout
        assert "verify failed" in closer
    finally:
        forkjoin(tmp_path, "daemon", "stop", env={"FORKJOIN_HOME": str(folder / "home")}, check=False)
        shutil.rmtree(folder)


def test_an_unknown_demo_agent_is_refused(tmp_path: Path) -> None:
    done = forkjoin(tmp_path, "demo", "--agent", "nobody", check=False)
    assert (done.returncode, "is unknown. Use scripted or claude" in done.stderr) == (1, True)


def test_an_interrupted_demo_removes_its_agents_daemon_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running(tmp_path, "demo") as process:
        assert process.stdout
        shown = ""
        while "multiply" not in shown:
            line = process.stdout.readline()
            assert line, "it ended"
            shown += line
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=GIVE_UP_S)
    assert (process.returncode, "Traceback" in words) == (130, False), words
    assert processes_of(tmp_path) == {}
    assert list(tmp_path.glob("forkjoin-demo-*")) == []


def test_the_demo_ignores_git_dir(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    (tmp_path / "calc").mkdir()
    make_repository(tmp_path / "calc")
    monkeypatch.delenv("GIT_DIR")
    assert git(repository, "log", "--format=%s") == "first"
    assert git(tmp_path / "calc", "log", "--format=%s") == "A tiny calculator"
