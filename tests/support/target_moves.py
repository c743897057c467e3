"""Moves of a target: a repository whose main is about to move from one commit to another."""

from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from forkjoin.git.merging.files_in_the_way import find_files_in_the_way
from forkjoin.git.merging.move_target import TargetMove, apply_move
from forkjoin.git.worktrees import checkout
from forkjoin.git.worktrees.checkout import find_checkout, lock_checkout
from forkjoin.merge_queue.recovery import settle_interrupted_move
from support.branches import OWNER, commit, write
from support.harness import GIVE_UP_S, git


@dataclass(frozen=True)
class Target:
    """A repository's main, and the commit that it will move to. No ref has that commit yet."""

    repository: Path
    old: str
    new: str

    @property
    def common_dir(self) -> str:
        return str(self.repository / ".git")

    async def find_move(self) -> TargetMove:
        where = await find_checkout(self.common_dir, "refs/heads/main")
        return TargetMove("refs/heads/main", self.old, self.new, where, "forkjoin: merge a1")

    async def land(self) -> list[str]:
        """Move main, unless files are in the way. Return these files."""
        move = await self.find_move()
        async with lock_checkout(self.common_dir, move.checkout, move.ref, OWNER) as held:
            held, obstacles = await find_files_in_the_way(held, move.old, move.new) if held else (None, [])
            if obstacles:
                return obstacles
            await apply_move(self.common_dir, move, held)
        return []

    async def settle_interrupted_move(self) -> bool:
        """Settle this move as the next daemon does after the first was killed."""
        move = TargetMove("refs/heads/main", self.old, self.new, str(self.repository), "forkjoin: merge a1")
        return await settle_interrupted_move(self.common_dir, move, OWNER)

    async def resume(self) -> list[str]:
        """Settle this move, and make it if necessary. Return the files in the way."""
        return [] if await self.settle_interrupted_move() else await self.land()

    def tip(self) -> str:
        """Return the commit of main."""
        return git(self.repository, "rev-parse", "refs/heads/main")

    def status(self) -> list[str]:
        """Return git's status of the checkout: changes and untracked files."""
        return git(self.repository, "status", "--porcelain", "--untracked-files=all").splitlines()


#: What the move changes: it edits a file, adds a file in a new folder, deletes a file, and replaces a file by a folder.
CHANGES = {"shared.txt": "one\n2\nthree\n", "new/file": "new\n", "old": None, "flat": None, "flat/file": "deep\n"}
AFTER = {
    "README.md": b"a repository\n",
    "other": b"other\n",
    "shared.txt": b"one\n2\nthree\n",
    "new/file": b"new\n",
} | {
    "flat/file": b"deep\n",
    ".gitignore": b"*.log\n",
}


def make_target(repository: Path) -> Target:
    """Return a target whose move makes `CHANGES`."""
    base = commit(repository, {"old": "old\n", "flat": "flat\n", "other": "other\n", ".gitignore": "*.log\n"})
    (repository / "flat").unlink()
    for name, text in CHANGES.items():
        if name != "flat":
            write(repository, name, text)
    git(repository, "add", "--all")
    git(repository, "commit", "-qm", "of the agent")
    tip = git(repository, "rev-parse", "HEAD")
    git(repository, "reset", "-q", "--hard", base)
    new = git(repository, "commit-tree", "-p", base, "-p", tip, "-m", "Merge a1", f"{tip}^{{tree}}")
    return Target(repository, base, new)


def note_waits(monkeypatch: pytest.MonkeyPatch) -> anyio.Event:
    """Return an event that is set as soon as a task waits for an index.lock.

    The task waits for the lock longer than usual.
    """
    waiting = anyio.Event()
    sleep = anyio.sleep

    async def note_and_sleep(seconds: float) -> None:
        waiting.set()
        await sleep(seconds)

    monkeypatch.setattr(checkout, "_LOCK_GIVE_UP_S", GIVE_UP_S)
    monkeypatch.setattr(anyio, "sleep", note_and_sleep)
    return waiting
