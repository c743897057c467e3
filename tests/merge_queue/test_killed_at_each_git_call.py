"""Merges whose daemon is killed at any git call: the next daemon merges once and completely (fault 2).

The process that runs the merge job is killed at git calls, at changes of its own in the repository, and at records. A
process that takes over during a move is killed as well. Then a process runs the job undisturbed, and also the job that
waits for the same target. The soak tests kill the process at each call and change, the others at
one call of each kind.
"""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from forkjoin.app import open_reconciler
from forkjoin.core.paths import Home
from forkjoin.core.session import Call
from forkjoin.merge_queue.report import MergeReport
from forkjoin.store.rows import NewMergeJob
from support.branches import REAL_GIT, commit, contents, everything, write
from support.harness import git
from support.merges import list_scratch_worktrees, record_merge_job, run_job_as_next_daemon, run_job_in_subprocess

#: What the agent changes: it edits, adds and deletes a file, and replaces a file by a folder.
CHANGES = {"shared.txt": "one\n2\nthree\n", "new/file": "new\n", "old": None, "flat": None, "flat/file": "deep\n"}

#: A git that logs and counts its calls, and kills the calling process at the call $AT: a number, or words of the call.
#: $HOW says when git does its work: after the kill ("meanwhile"), before the kill ("after"), or not at all ("before").
COUNTS = """#!/bin/sh
number=$(( $(cat "$COUNT" 2>/dev/null || echo 0) + 1 ))
echo $number > "$COUNT"
echo "$*" >> "$COUNT.calls"
case " $number $* " in *" $AT "*)
    [ "$HOW" = after ] && {git} "$@"
    kill -9 $PPID
    [ "$HOW" = meanwhile ] && exec {git} "$@"
    exit 1
esac
exec {git} "$@"
"""


class World:
    """A repository with changes of its user, queued merge jobs, and a copy of everything to restore."""

    def __init__(self, repository: Path, home: Home, job: int, behind: int | None = None) -> None:
        self.repository, self.home, self.job, self.behind = repository, home, job, behind
        self._folder = repository.parent
        self._copy = self._folder / "copy"
        self.old = git(repository, "rev-parse", "main")
        for folder in (repository, home.state):
            shutil.copytree(folder, self._copy / folder.name, symlinks=True)
        (self._folder / "bin").mkdir()
        (self._folder / "bin" / "git").write_text(COUNTS.format(git=REAL_GIT))
        (self._folder / "bin" / "git").chmod(0o755)

    def restore(self) -> None:
        for folder in (self.repository, self.home.state):
            shutil.rmtree(folder)
            shutil.copytree(self._copy / folder.name, folder, symlinks=True)

    def run_killed(self, at: int | str, how: str = "before") -> bool:
        """Run the job in a process that is killed at this git call.

        Return False if the process ended before that call.
        """
        count = self._folder / "count"
        count.unlink(missing_ok=True)
        path = f"{self._folder / 'bin'}:{os.environ['PATH']}"
        ended = run_job_in_subprocess(
            self.job, {**os.environ, "PATH": path, "COUNT": str(count), "AT": str(at), "HOW": how}
        )
        assert ended in (0, -signal.SIGKILL)
        return ended != 0

    def find_distinct_calls(self) -> list[int]:
        """Return the number of the first git call of each kind in an undisturbed run.

        Calls are of one kind if they have the same subcommand and first argument.
        """
        log = self._folder / "count.calls"
        log.unlink(missing_ok=True)
        assert not self.run_killed("no call has these words")
        self.restore()
        kinds = [_kind_of_call(line) for line in log.read_text().splitlines()]
        return [number for number, kind in enumerate(kinds, 1) if kinds.index(kind) == number - 1]

    def run_crashing(self, *falls: str) -> bool:
        """Run the job in a process that kills itself at this point.

        Return False if the process ended before that point.
        """
        ended = run_job_in_subprocess(self.job, os.environ, *falls)
        assert ended in (0, -signal.SIGKILL)
        return ended != 0

    async def check_both_merge(self) -> None:
        """Run both jobs, and check that each is merged once, one on top of the other."""
        first = await run_job_as_next_daemon(self.home, self.job)
        assert [merged.id for merged in first.merged] == ["a1"], first
        assert self.behind is not None
        second = await run_job_as_next_daemon(self.home, self.behind)
        assert [merged.id for merged in second.merged] == ["a2"], second
        chain = git(self.repository, "log", "--first-parent", "--format=%H", "main").splitlines()
        assert chain[:3] == [second.commit, first.commit, self.old]

    def check_merged(self, report: MergeReport) -> None:
        """Check that the branch was merged once, and that the user's changes are kept."""
        assert [merged.id for merged in report.merged] == ["a1"]
        assert git(self.repository, "log", "--first-parent", "--format=%H", "main").splitlines()[:2] == [
            *(report.commit, self.old)
        ]
        assert contents(self.repository) == AFTER
        assert git(self.repository, "diff") == git(self._copy / "repository", "diff")
        assert git(self.repository, "diff", "--cached") == git(self._copy / "repository", "diff", "--cached")
        assert sorted(git(self.repository, "status", "--porcelain").splitlines()) == STATUS
        self.check_no_litter()

    def check_no_litter(self) -> None:
        assert git(self.repository, "fsck", "--no-dangling") == ""
        assert everything(self.repository)["locks"] == []
        left = {path.name for path in (self.repository / ".git").iterdir() if path.name.startswith("forkjoin")}
        assert left <= {"forkjoin.lock"}
        scratch = list_scratch_worktrees(self.repository, self.home)
        assert len(scratch) <= 1
        assert git(self.repository, "worktree", "list", "--porcelain").count("worktree ") == 1 + len(scratch)
        assert list(self.home.attempts.iterdir()) == []


STATUS = [" D gone", " M other", "?? notes", "A  mine", "AM twice"]
AFTER = {
    "README.md": b"a repository\n",
    "shared.txt": b"one\n2\nthree\n",
    "new/file": b"new\n",
    "flat/file": b"deep\n",
    "other": b"edited\n",
    "mine": b"staged\n",
    "twice": b"staged\nand edited\n",
    "notes": b"untracked\n",
}


def _kind_of_call(line: str) -> tuple[str, ...]:
    """Return the subcommand of a git call, and its first argument if it is an option."""
    words = line.split()
    while words[0].startswith("-"):
        del words[: 2 if words[0] in ("-c", "-C") else 1]
    return tuple(words[: 2 if words[1:] and words[1].startswith("-") else 1])


async def make_world(repository: Path, home: Home, verify: str | None, *, behind: bool = False) -> World:
    commit(repository, {"old": "old\n", "other": "other\n", "gone": "gone\n", "flat": "flat\n"})
    job = await record_merge_job(home, repository, CHANGES, verify)
    second = await record_merge_job(home, repository, {"behind": "behind\n"}, None, "forkjoin/b") if behind else None
    write(repository, "other", "edited\n")
    for name in ("mine", "twice"):
        write(repository, name, "staged\n")
    git(repository, "add", "mine", "twice")
    write(repository, "twice", "staged\nand edited\n")
    write(repository, "notes", "untracked\n")
    (repository / "gone").unlink()
    return World(repository, home, job, second)


async def test_a_merge_killed_at_a_git_call_of_each_kind_is_done_once_and_completely(
    repository: Path, home: Home
) -> None:
    world = await make_world(repository, home, None)
    calls = world.find_distinct_calls()
    assert len(calls) > 8, "the job made too few calls for a whole merge"
    for number in calls:
        assert world.run_killed(number)
        world.check_merged(await run_job_as_next_daemon(home, world.job))
        world.restore()


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1, 5))
async def test_a_merge_killed_at_any_git_call_is_done_once_and_completely(
    repository: Path, home: Home, first: int
) -> None:
    world = await make_world(repository, home, None)
    number = first
    while world.run_killed(number):
        world.check_merged(await run_job_as_next_daemon(home, world.job))
        world.restore()
        number += 4
    assert number > 12, "the process was killed at too few calls for a whole merge"
    world.check_merged(await run_job_as_next_daemon(home, world.job))


@pytest.mark.parametrize("first", [pytest.param(1, marks=pytest.mark.soak), 2, pytest.param(3, marks=pytest.mark.soak)])
async def test_two_merges_are_done_though_the_first_is_killed_at_a_file_change(
    repository: Path, home: Home, first: int
) -> None:
    world = await make_world(repository, home, None, behind=True)
    number = first
    while world.run_crashing("at", str(number), str(repository)):
        await world.check_both_merge()
        assert contents(repository) == AFTER | {"behind": b"behind\n"}
        assert sorted(git(repository, "status", "--porcelain").splitlines()) == STATUS
        world.check_no_litter()
        world.restore()
        number += 3
    assert number > 10, "the process was killed at too few changes for a whole merge"


def stays(repository: Path) -> Path:
    return repository


def leaves(repository: Path) -> Path:
    git(repository, "switch", "-qc", "side")
    return repository


def is_bare(repository: Path) -> Path:
    git(repository, "clone", "-q", "--bare", ".", str(repository.with_name("bare.git")))
    return repository.with_name("bare.git")


@pytest.mark.parametrize(
    ("step", "person"),
    [("set_landing", stays), ("set_landing", leaves), ("set_landing", is_bare), ("Merges.finish", stays)],
)
async def test_two_merges_are_done_though_the_first_is_killed_at_a_record(
    repository: Path, home: Home, step: str, person: Callable[[Path], Path]
) -> None:
    here = person(repository)
    job = await record_merge_job(home, here, {"shared.txt": "2\n"}, "grep 2 shared.txt")
    behind = await record_merge_job(home, here, {"behind": "behind\n"}, None, "forkjoin/behind")
    if person is not is_bare:
        write(repository, "README.md", "edited\n")
    world = World(here, home, job, behind)
    for when in ("within", "after"):
        assert world.run_crashing(when, "1", step, str(home.state / "fell"))
        await world.check_both_merge()
        assert git(here, "show", "main:shared.txt", "main:behind") == "2\nbehind"
        assert git(here, "fsck", "--no-dangling") == ""
        assert list_scratch_worktrees(here, home) == ["target-1"]
        if person is not is_bare:
            assert git(here, "status", "--porcelain") == " M README.md"
            world.check_no_litter()
        world.restore()


@pytest.mark.parametrize(
    ("moves", "how"), [("read-tree -m -u {old}", "meanwhile"), ("update-ref", "before"), ("update-ref", "after")]
)
async def test_a_move_whose_rollback_is_killed_too_is_done_once(
    repository: Path, home: Home, moves: str, how: str
) -> None:
    world = await make_world(repository, home, None)
    for number in range(2, 1000, 6):
        assert world.run_killed(moves.format(old=world.old), how)
        again = world.run_killed(number)
        world.check_merged(await run_job_as_next_daemon(home, world.job))
        if not again:
            break
        world.restore()


async def test_verify_runs_once_though_the_daemon_is_killed_before_or_after_it(repository: Path, home: Home) -> None:
    log = home.state / "log"
    world = await make_world(repository, home, f"echo began >> {log}; test -e new/file")
    for moves in ("worktree add", "reset"):
        assert world.run_killed(moves)
        world.check_merged(await run_job_as_next_daemon(home, world.job))
        assert log.read_text() == "began\n"
        world.restore()


@pytest.mark.parametrize("action", ["switch", "delete"])
async def test_an_interrupted_move_looks_again_for_a_checkout_of_its_target(
    repository: Path, home: Home, action: str
) -> None:
    number = await record_merge_job(home, repository, {"new/file": "new\n"}, None)
    git(repository, "switch", "-qc", "side")
    world = World(repository, home, number)
    assert world.run_killed("update-ref")
    if action == "switch":
        git(repository, "switch", "-q", "main")
    else:
        git(repository, "branch", "-qD", "main")
    report = await run_job_as_next_daemon(home, number)
    if action == "switch":
        assert report.commit == git(repository, "rev-parse", "main")
        assert (repository / "new" / "file").exists()
    else:
        assert report.error == "The branch main no longer exists; name another one in `into`."
    assert git(repository, "status", "--porcelain") == ""
    world.check_no_litter()


async def make_undo_world(repository: Path, home: Home, *, built_on: bool) -> World:
    """Merge an agent, and record a job that undoes the merge.

    Args:
        built_on: Whether a person has committed since the merge.
    """
    merge = await record_merge_job(home, repository, {"shared.txt": "2\n", "new": "new\n"}, None)
    await run_job_as_next_daemon(home, merge)
    if built_on:
        commit(repository, {"later": "later\n"})
    async with open_reconciler(home) as reconciler:
        new = NewMergeJob(1, "lead", (), "refs/heads/main", None, False, "", undoes=merge)
        number = (await reconciler.store.merges.add(new, Call("", ""))).number
    write(repository, "README.md", "edited\n")
    return World(repository, home, number)


@pytest.mark.parametrize("built_on", [False, True])
async def test_an_undo_killed_at_a_git_call_of_each_kind_is_done_once_and_completely(
    repository: Path, home: Home, built_on: bool
) -> None:
    world = await make_undo_world(repository, home, built_on=built_on)
    for number in world.find_distinct_calls():
        assert world.run_killed(number)
        await check_undone(world, await run_job_as_next_daemon(home, world.job), built_on=built_on)
        world.restore()


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1, 4))
@pytest.mark.parametrize("built_on", [False, True])
async def test_an_undo_killed_at_any_git_call_is_done_once_and_completely(
    repository: Path, home: Home, first: int, built_on: bool
) -> None:
    world = await make_undo_world(repository, home, built_on=built_on)
    at = first
    while world.run_killed(at):
        await check_undone(world, await run_job_as_next_daemon(home, world.job), built_on=built_on)
        world.restore()
        at += 3
    assert at > 8, "the process was killed at too few calls for a whole undo"
    await check_undone(world, await run_job_as_next_daemon(home, world.job), built_on=built_on)


async def check_undone(world: World, report: MergeReport, *, built_on: bool) -> None:
    """Check that the merge was undone once, and that the user's edit is kept."""
    assert (report.undone, report.reverted) == (("a1",), built_on)
    before = git(world.repository, "rev-parse", "main^" if built_on else "main^{commit}")
    assert before == (world.old if built_on else git(world.repository, "rev-parse", f"{world.old}^1"))
    assert git(world.repository, "status", "--porcelain") == " M README.md"
    later = {"later": b"later\n"} if built_on else {}
    assert contents(world.repository) == {"README.md": b"edited\n", "shared.txt": b"one\ntwo\nthree\n", **later}
    world.check_no_litter()
