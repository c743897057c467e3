"""A daemon that is killed at any call of git in a landing is followed by one that lands it, once and wholly (fault 2).

The process that carries out the landing is killed at its first call of git, its second, and so on to the last; at each
change that it makes itself in the repository; at each of its records. So is the one that takes over from it in the
midst of a move. Then one carries it out undisturbed, and the landing that waits behind it for the same target.
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
from support.merges import carry_out_elsewhere, carry_out_here, record_landing, scratch_of

#: What the agent changes: a file edited, one added, one deleted, and a folder in place of one.
CHANGES = {"shared.txt": "one\n2\nthree\n", "new/file": "new\n", "old": None, "flat": None, "flat/file": "deep\n"}

#: A git that counts its calls and kills who called it at a call that is given, by its number or by words in it: before
#: it does its work, after it, or beside it.
COUNTS = """#!/bin/sh
number=$(( $(cat "$COUNT" 2>/dev/null || echo 0) + 1 ))
echo $number > "$COUNT"
case " $number $* " in *" $AT "*)
    [ "$HOW" = after ] && {git} "$@"
    kill -9 $PPID
    [ "$HOW" = beside ] && exec {git} "$@"
    exit 1
esac
exec {git} "$@"
"""


class World:
    """A repository with its user's own changes, landings that wait, and a copy of all to begin from again."""

    def __init__(self, repository: Path, home: Home, landing: int, behind: int | None = None) -> None:
        self.repository, self.home, self.landing, self.behind = repository, home, landing, behind
        self._folder = repository.parent
        self._copy = self._folder / "copy"
        self.old = git(repository, "rev-parse", "main")
        for folder in (repository, home.state):
            shutil.copytree(folder, self._copy / folder.name, symlinks=True)
        (self._folder / "bin").mkdir()
        (self._folder / "bin" / "git").write_text(COUNTS.format(git=REAL_GIT))
        (self._folder / "bin" / "git").chmod(0o755)

    def begin_again(self) -> None:
        for folder in (self.repository, self.home.state):
            shutil.rmtree(folder)
            shutil.copytree(self._copy / folder.name, folder, symlinks=True)

    def carry_out_killed(self, at: int | str, how: str = "before") -> bool:
        """Let a process carry it out that is killed at this call of git; false if it came to its end before."""
        count = self._folder / "count"
        count.unlink(missing_ok=True)
        path = f"{self._folder / 'bin'}:{os.environ['PATH']}"
        ended = carry_out_elsewhere(
            self.landing, {**os.environ, "PATH": path, "COUNT": str(count), "AT": str(at), "HOW": how}
        )
        assert ended in (0, -signal.SIGKILL)
        return ended != 0

    def carry_out_falling(self, *falls: str) -> bool:
        """Let a process carry it out that falls there; false if it came to its end before."""
        ended = carry_out_elsewhere(self.landing, os.environ, *falls)
        assert ended in (0, -signal.SIGKILL)
        return ended != 0

    async def check_both_land(self) -> None:
        """See that it lands once, though a daemon was killed, and the one behind it on that."""
        first = await carry_out_here(self.home, self.landing)
        assert [merged.id for merged in first.merged] == ["a1"], first
        assert self.behind is not None
        second = await carry_out_here(self.home, self.behind)
        assert [merged.id for merged in second.merged] == ["a2"], second
        chain = git(self.repository, "log", "--first-parent", "--format=%H", "main").splitlines()
        assert chain[:3] == [second.commit, first.commit, self.old]

    def check_landed(self, landed: MergeReport) -> None:
        """See that it has landed once, wholly, beside all of the user's own."""
        assert [merged.id for merged in landed.merged] == ["a1"]
        assert git(self.repository, "log", "--first-parent", "--format=%H", "main").splitlines()[:2] == [
            *(landed.commit, self.old)
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
        scratch = scratch_of(self.repository, self.home)
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


async def make_world(repository: Path, home: Home, verify: str | None, *, behind: bool = False) -> World:
    commit(repository, {"old": "old\n", "other": "other\n", "gone": "gone\n", "flat": "flat\n"})
    landing = await record_landing(home, repository, CHANGES, verify)
    second = await record_landing(home, repository, {"behind": "behind\n"}, None, "forkjoin/b") if behind else None
    write(repository, "other", "edited\n")
    for name in ("mine", "twice"):
        write(repository, name, "staged\n")
    git(repository, "add", "mine", "twice")
    write(repository, "twice", "staged\nand edited\n")
    write(repository, "notes", "untracked\n")
    (repository / "gone").unlink()
    return World(repository, home, landing, second)


@pytest.mark.parametrize("first", range(1, 5))
async def test_killed_at_any_call_of_git_it_lands_once_and_wholly(repository: Path, home: Home, first: int) -> None:
    world = await make_world(repository, home, None)
    number = first
    while world.carry_out_killed(number):
        world.check_landed(await carry_out_here(home, world.landing))
        world.begin_again()
        number += 4
    assert number > 12, "these were the calls of a whole landing"
    world.check_landed(await carry_out_here(home, world.landing))


@pytest.mark.parametrize("first", range(1, 4))
async def test_killed_at_any_change_of_its_own_in_the_repository_both_land(
    repository: Path, home: Home, first: int
) -> None:
    world = await make_world(repository, home, None, behind=True)
    number = first
    while world.carry_out_falling("at", str(number), str(repository)):
        await world.check_both_land()
        assert contents(repository) == AFTER | {"behind": b"behind\n"}
        assert sorted(git(repository, "status", "--porcelain").splitlines()) == STATUS
        world.check_no_litter()
        world.begin_again()
        number += 3
    assert number > 10, "these were the changes of a whole landing"


def stays(repository: Path) -> Path:
    return repository


def leaves(repository: Path) -> Path:
    git(repository, "switch", "-qc", "side")
    return repository


def is_bare(repository: Path) -> Path:
    git(repository, "clone", "-q", "--bare", ".", str(repository.with_name("bare.git")))
    return repository.with_name("bare.git")


@pytest.mark.parametrize("step", ["set_landing", "Merges.finish"])
@pytest.mark.parametrize("person", [stays, leaves, is_bare])
async def test_killed_at_any_record_both_land_wherever_the_target_is(
    repository: Path, home: Home, step: str, person: Callable[[Path], Path]
) -> None:
    here = person(repository)
    landing = await record_landing(home, here, {"shared.txt": "2\n"}, "grep 2 shared.txt")
    behind = await record_landing(home, here, {"behind": "behind\n"}, None, "forkjoin/behind")
    if person is not is_bare:
        write(repository, "README.md", "edited\n")
    world = World(here, home, landing, behind)
    for when in ("within", "after"):
        assert world.carry_out_falling(when, "1", step, str(home.state / "fell"))
        await world.check_both_land()
        assert git(here, "show", "main:shared.txt", "main:behind") == "2\nbehind"
        assert git(here, "fsck", "--no-dangling") == ""
        assert scratch_of(here, home) == ["target-1"]
        if person is not is_bare:
            assert git(here, "status", "--porcelain") == " M README.md"
            world.check_no_litter()
        world.begin_again()


@pytest.mark.parametrize(
    ("moves", "how"), [("read-tree -m -u {old}", "beside"), ("update-ref", "before"), ("update-ref", "after")]
)
async def test_killed_in_the_midst_of_a_move_and_again_when_that_is_taken_back(
    repository: Path, home: Home, moves: str, how: str
) -> None:
    world = await make_world(repository, home, None)
    for number in range(2, 1000, 6):
        assert world.carry_out_killed(moves.format(old=world.old), how)
        again = world.carry_out_killed(number)
        world.check_landed(await carry_out_here(home, world.landing))
        if not again:
            break
        world.begin_again()


async def test_killed_while_verify_runs_it_is_gone_on_with(repository: Path, home: Home) -> None:
    log = home.state / "log"
    world = await make_world(repository, home, f"echo began >> {log}; test -e new/file")
    for moves in ("worktree add", "reset"):
        assert world.carry_out_killed(moves)
        world.check_landed(await carry_out_here(home, world.landing))
        assert log.read_text() == "began\n"
        world.begin_again()


@pytest.mark.parametrize("by_then", ["switch", "delete"])
async def test_killed_while_it_moves_a_target_that_was_nowhere_its_checkout_is_looked_for_anew(
    repository: Path, home: Home, by_then: str
) -> None:
    number = await record_landing(home, repository, {"new/file": "new\n"}, None)
    git(repository, "switch", "-qc", "side")
    world = World(repository, home, number)
    assert world.carry_out_killed("update-ref")
    if by_then == "switch":
        git(repository, "switch", "-q", "main")
    else:
        git(repository, "branch", "-qD", "main")
    landed = await carry_out_here(home, number)
    if by_then == "switch":
        assert landed.commit == git(repository, "rev-parse", "main")
        assert (repository / "new" / "file").exists()
    else:
        assert landed.error == "The branch main no longer exists; name another one in `into`."
    assert git(repository, "status", "--porcelain") == ""
    world.check_no_litter()


@pytest.mark.parametrize("first", range(1, 4))
@pytest.mark.parametrize("built_on", [False, True])
async def test_killed_at_any_call_of_git_an_undo_is_done_once_and_wholly(
    repository: Path, home: Home, first: int, built_on: bool
) -> None:
    merge = await record_landing(home, repository, {"shared.txt": "2\n", "new": "new\n"}, None)
    await carry_out_here(home, merge)
    if built_on:
        commit(repository, {"later": "later\n"})
    async with open_reconciler(home) as reconciler:
        new = NewMergeJob(1, "lead", (), "refs/heads/main", None, False, "", undoes=merge)
        number = (await reconciler.store.merges.add(new, Call("", ""))).number
    write(repository, "README.md", "edited\n")
    world = World(repository, home, number)
    at = first
    while world.carry_out_killed(at):
        await check_undone(world, await carry_out_here(home, number), built_on=built_on)
        world.begin_again()
        at += 3
    assert at > 8, "these were the calls of a whole undo"
    await check_undone(world, await carry_out_here(home, number), built_on=built_on)


async def check_undone(world: World, landed: MergeReport, *, built_on: bool) -> None:
    """See that it was undone once, wholly, beside what the user has edited."""
    assert (landed.undone, landed.reverted) == (("a1",), built_on)
    before = git(world.repository, "rev-parse", "main^" if built_on else "main^{commit}")
    assert before == (world.old if built_on else git(world.repository, "rev-parse", f"{world.old}^1"))
    assert git(world.repository, "status", "--porcelain") == " M README.md"
    later = {"later": b"later\n"} if built_on else {}
    assert contents(world.repository) == {"README.md": b"edited\n", "shared.txt": b"one\ntwo\nthree\n", **later}
    world.check_no_litter()
