"""A daemon that is killed while it lands: the next one goes on, and the lead gets one answer (fault 2)."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from crash import with_fail_points
from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from support.branches import REAL_GIT, commit, contents, everything, put_counting_git, put_git
from support.harness import GIVE_UP_S, Lead, git, open_lead, until
from support.merges import check_sound, ids_of, scratch_of


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


async def merge_both(lead: Lead) -> list[dict[str, Any]]:
    """Ask for two merges at once, of a1 and a2; what is answered."""
    answers: dict[str, dict[str, Any]] = {}

    async def merge(agent: str) -> None:
        answers[agent] = await lead.call("merge_worktree", ids=[agent])

    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            for agent in ("a1", "a2"):
                tasks.start_soon(merge, agent)
    return [answers["a1"], answers["a2"]]


def check_both_landed(repository: Path, answers: list[dict[str, Any]]) -> None:
    """See that both have landed once, beside what a person was editing."""
    assert [ids_of(answer, "merged") for answer in answers] == [["a1"], ["a2"]]
    chain = git(repository, "log", "--first-parent", "--format=%H", "main").splitlines()
    assert len(chain) == 4
    assert set(chain[:2]) == {answer["commit"] for answer in answers}
    after = {"README.md": b"a repository\n", "shared.txt": b"2\n", "one": b"\n", "two": b"\n", "other": b"mine\n"}
    assert contents(repository) == after
    assert git(repository, "status", "--porcelain") == " M other"
    assert everything(repository)["locks"] == []


TASKS = ("rm old; echo 2 > shared.txt; echo > one", "echo > two")


@pytest.mark.parametrize(
    ("call", "before", "after"),
    [
        (" read-tree -m -u {old}", "", ""),
        ("forkjoin: merge", "", "exit 1"),
        ("forkjoin: merge", '{git} "$@"', "exit"),
    ],
)
async def test_a_daemon_that_is_killed_while_it_moves_the_target_has_moved_it_wholly(
    *, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, call: str, before: str, after: str
) -> None:
    prepare_to_kill(repository, home, monkeypatch, call=call, before=before, after=after)
    async with open_lead(repository) as lead:
        await lead.run(*TASKS)
        (repository / "other").write_text("mine\n")
        answers = await merge_both(lead)
    assert (home.state / "killed").exists()
    check_both_landed(repository, answers)


@contextmanager
def falling_daemon(home: Home, when: str, step: str) -> Generator[Path]:
    """The home's daemon, which falls at the first record of this step; the file that tells that it did."""
    fell = home.state / "fell"
    argv = [sys.executable, "-P", "-E", with_fail_points.__file__, when, "1", step, str(fell)]
    with (home.state / "daemon.log").open("ab") as log:
        daemon = subprocess.Popen(argv, cwd=home.state, stdout=log, stderr=log, start_new_session=True)
    with daemon:
        while not file_lock.is_held(home.daemon_lock):
            assert daemon.poll() is None
        yield fell
        daemon.kill()


@pytest.mark.parametrize(
    ("when", "step"),
    [("before", "Merges.add"), ("after", "Merges.add"), ("after", "set_landing"), ("after", "Merges.finish")],
)
async def test_a_daemon_that_falls_at_a_record_of_a_landing_is_followed_by_one_that_lands_all(
    repository: Path, home: Home, when: str, step: str
) -> None:
    commit(repository, {"old": "old\n", "other": "other\n"})
    with falling_daemon(home, when, step) as fell:
        async with open_lead(repository) as lead:
            await lead.run(*TASKS)
            (repository / "other").write_text("mine\n")
            answers = await merge_both(lead)
        assert fell.read_text() == f"{when} step 1: {step}\n"
    check_both_landed(repository, answers)
    assert scratch_of(repository, home) == []
