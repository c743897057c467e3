"""forkjoin demo: its story, told by the repository that it leaves."""

import re
import shutil
from pathlib import Path

from harness import forkjoin, git


def test_the_demo_merges_what_is_good_and_names_the_rest(tmp_path: Path) -> None:
    said = forkjoin(tmp_path, "demo", env={"COLUMNS": "120"}).stdout
    folder = Path(re.findall(r"cd (\S+)/calc &&", said)[0])
    try:
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
    assert (done.returncode, "the demo knows scripted and claude" in done.stderr) == (1, True)
