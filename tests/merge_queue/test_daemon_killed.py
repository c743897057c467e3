"""A daemon that is killed during a merge: the next daemon continues, and the lead gets one answer (fault 2)."""

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
from support.merges import check_sound, ids_of, list_scratch_worktrees


def daemon_of(home: Home) -> psutil.Process:
    """Return the process of the home's daemon."""
    for process in psutil.process_iter():
        try:
            if process.cmdline()[-2:] == ["daemon", "run"] and process.environ()["FORKJOIN_HOME"] == str(home.state):
                return process
        except (psutil.Error, KeyError):
            continue
    raise AssertionError("there is no daemon")


async def test_a_running_verify_continues_undisturbed_when_the_daemon_is_killed(
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
    assert "clean" not in calls.read_text(), "the scratch worktree was not checked out again"
    assert list_scratch_worktrees(repository, home) == ["target-1"]
    check_sound(repository)


#: A git that kills its daemon once, at the call that contains `call`. It runs `before` first, and `after` afterwards.
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
    """Merge a1 and a2 in two concurrent calls. Return the answers."""
    answers: dict[str, dict[str, Any]] = {}

    async def merge(agent: str) -> None:
        answers[agent] = await lead.call("merge_worktree", ids=[agent])

    with anyio.fail_after(GIVE_UP_S):
        async with anyio.create_task_group() as tasks:
            for agent in ("a1", "a2"):
                tasks.start_soon(merge, agent)
    return [answers["a1"], answers["a2"]]


def check_both_merged(repository: Path, answers: list[dict[str, Any]]) -> None:
    """Check that both were merged once, and that the user's edit is still there."""
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
async def test_a_move_of_the_target_is_completed_when_the_daemon_is_killed(
    *, repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch, call: str, before: str, after: str
) -> None:
    prepare_to_kill(repository, home, monkeypatch, call=call, before=before, after=after)
    async with open_lead(repository) as lead:
        await lead.run(*TASKS)
        (repository / "other").write_text("mine\n")
        answers = await merge_both(lead)
    assert (home.state / "killed").exists()
    check_both_merged(repository, answers)


@contextmanager
def daemon_with_fail_point(home: Home, when: str, step: str) -> Generator[Path]:
    """Start a daemon that kills itself at the first record of this step.

    Yields the file that the daemon writes before it kills itself.
    """
    fell = home.state / "fell"
    argv = [sys.executable, "-P", "-E", with_fail_points.__file__, when, "1", step, str(fell)]
    with (home.state / "daemon.log").open("ab") as log:
        daemon = subprocess.Popen(argv, cwd=home.state, stdout=log, stderr=log, start_new_session=True)
    with daemon:
        try:
            while not file_lock.is_held(home.daemon_lock):
                assert daemon.poll() is None
            yield fell
        finally:
            daemon.kill()


@pytest.mark.parametrize(
    ("when", "step"),
    [("before", "Merges.add"), ("after", "Merges.add"), ("after", "set_landing"), ("after", "Merges.finish")],
)
async def test_both_merges_are_done_when_the_daemon_dies_at_a_record_of_a_merge(
    repository: Path, home: Home, when: str, step: str
) -> None:
    commit(repository, {"old": "old\n", "other": "other\n"})
    with daemon_with_fail_point(home, when, step) as fell:
        async with open_lead(repository) as lead:
            await lead.run(*TASKS)
            (repository / "other").write_text("mine\n")
            answers = await merge_both(lead)
        assert fell.read_text() == f"{when} step 1: {step}\n"
    check_both_merged(repository, answers)
    assert list_scratch_worktrees(repository, home) == []
