"""A daemon that is killed while it lands: the next one goes on, and the lead gets one answer (fault 2)."""

from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from branches import REAL_GIT, commit, contents, everything, put_counting_git, put_git
from forkjoin.paths import Home
from harness import GIVE_UP_S, git, open_lead, until
from landings import check_sound, ids_of, scratch_of


def daemon_of(home: Home) -> psutil.Process:
    """The daemon of this home."""
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-2:] == ["daemon", "run"] and process.environ()["FORKJOIN_HOME"] == str(home.state):
                return process
        except (psutil.Error, KeyError):
            continue
    raise AssertionError("there is no daemon")


async def test_a_verify_that_runs_when_the_daemon_is_killed_is_neither_disturbed_nor_run_again(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = put_counting_git(home.state / "bin", monkeypatch)
    verify = (
        f"echo began >> {home.state}/log; echo edited > shared.txt; touch made; "
        f"until [ -e {home.state}/go ]; do sleep 0.02; done; test -e made && grep edited shared.txt"
    )
    answers: list[Any] = []
    async with open_lead(repository) as lead:
        await lead.run("echo > one")

        async def merge() -> None:
            answers.append(await lead.call("merge_worktree", ids=["a1"], verify=verify))

        with anyio.fail_after(GIVE_UP_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(merge)
                await until((home.state / "log").exists)
                daemon_of(home).kill()
                await until(lambda: calls.read_text().count("fast-import") >= 2)  # of the next daemon
                (home.state / "go").touch()
    assert ids_of(answers[0], "merged") == ["a1"]
    assert (home.state / "log").read_text() == "began\n"
    assert "clean" not in calls.read_text(), "its files were not given to it anew"
    assert scratch_of(repository, home) == ["target-1"]
    check_sound(repository)


#: A git that kills its daemon, once, when it is called for this, and then does `after`.
KILLS = """
case " $* " in *"{call}"*)
    if mkdir {home}/killed 2>/dev/null; then
        {before}
        kill -9 $PPID
        {after}
    fi
esac
"""


def prepare_to_kill(repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, **words: str) -> None:
    old = commit(repository, {"old": "old\n", "other": "other\n"})
    words = {name: text.format(git=REAL_GIT, old=old, home=home.state) for name, text in words.items()}
    put_git(home.state / "bin", monkeypatch, KILLS.format(home=home.state, **words))


def check_moved(repository: Path, home: Home, answer: dict[str, Any]) -> None:
    """See that the daemon was killed, and all has landed once, beside what a person was editing."""
    assert (home.state / "killed").exists()
    assert ids_of(answer, "merged") == ["a1"]
    assert git(repository, "rev-parse", "main") == answer["commit"]
    after = {"README.md": b"a repository\n", "shared.txt": b"2\n", "one": b"\n", "other": b"mine\n"}
    assert contents(repository) == after
    assert git(repository, "status", "--porcelain") == " M other"
    assert everything(repository)["locks"] == []


TASK = "rm old; echo 2 > shared.txt; echo > one"


@pytest.mark.parametrize("call", [" read-tree -m -u {old}", "forkjoin: merge"])
@pytest.mark.parametrize(("before", "after"), [("", ""), ("", "exit 1"), ('{git} "$@"', "exit")])
async def test_a_daemon_that_is_killed_while_it_moves_the_target_has_moved_it_wholly(
    *, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, call: str, before: str, after: str
) -> None:
    prepare_to_kill(repository, home, monkeypatch, call=call, before=before, after=after)
    async with open_lead(repository) as lead:
        await lead.run(TASK)
        (repository / "other").write_text("mine\n")
        answer = await lead.call("merge_worktree", ids=["a1"])
    check_moved(repository, home, answer)
