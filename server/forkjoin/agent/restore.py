"""When records were lost: agents of which only the files of their attempts tell are recorded again.

They are recorded as running, whatever they were: the loop finds out as after any restart whether they still are, how
they ended, and what they did; their events are read again from their output.
"""

import logging
import re
from contextlib import suppress
from pathlib import Path

from anyio import to_thread
from pydantic import ValidationError

from forkjoin.branch import git
from forkjoin.error import GitError
from forkjoin.paths import Home
from forkjoin.record.damage import note_damage, set_aside_copies
from forkjoin.record.rows import About, Restored
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)

_ATTEMPT = re.compile(r"a([1-9]\d{0,8})-([1-9]\d{0,8})")
_WORKTREE = re.compile(r"a([1-9]\d{0,8})-.*")


async def restore(rooms: Rooms) -> None:
    """Record again what the records have lost, and never hand out a number again that was seen anywhere.

    As long as a damaged database stands beside the records, whatever has no record is lost; else only what has a
    number that the records have not handed out yet: the rest was deleted.
    """
    home, store = rooms.home, rooms.store
    handed_out, known = await store.numbers()
    damaged = bool(await to_thread.run_sync(set_aside_copies, home.records))
    abouts, highest = await to_thread.run_sync(_look, home)
    lost = [
        Restored(number, attempt, about, _is_cancelled(home, number, attempt), await _is_removed(about))
        for number, (attempt, about) in abouts.items()
        if number not in known and (damaged or number > handed_out)
    ]
    if not lost and highest <= handed_out:
        return
    log.warning("restored from the files of their attempts: %s", ", ".join(f"a{one.number}" for one in lost) or "none")
    if not damaged:
        await to_thread.run_sync(note_damage, home.records)
    await store.restore(lost, highest)


def _look(home: Home) -> tuple[dict[int, tuple[int, About]], int]:
    """What is told of each agent's newest attempt, and the largest number seen."""
    abouts: dict[int, tuple[int, About]] = {}
    worktrees = (_WORKTREE.fullmatch(folder.name) for folder in home.worktrees.glob("*/*"))
    attempts = (_ATTEMPT.fullmatch(folder.name) for folder in home.attempts.iterdir())
    handles = sorted((int(found[1]), int(found[2]), found[0]) for found in attempts if found)
    for number, attempt, handle in handles:
        with suppress(OSError, ValidationError):
            about = About.model_validate_json((home.attempts / handle / "about.json").read_bytes())
            abouts[number] = (attempt, about)
    seen = [*(int(found[1]) for found in worktrees if found), *(number for number, *_ in handles)]
    return abouts, max(seen, default=0)


def _is_cancelled(home: Home, number: int, attempt: int) -> bool:
    return (home.attempts / f"a{number}-{attempt}" / "cancel").exists()


async def _is_removed(about: About) -> bool:
    """Whether neither worktree nor branch are there any more."""
    if await to_thread.run_sync(Path(about.worktree).exists):
        return False
    with suppress(GitError, OSError):
        return await git.tip(about.project, f"refs/heads/{about.branch}") is None
    return False
