"""Restoring lost records of agents from the files of their attempts.

A restored agent is recorded as running, or as an agent that was asked to stop or to pause. Then the reconciler finds
out whether it still runs, or how it ended, as after any start of a daemon. Its events are read again from its output.
"""

import logging
import re
from contextlib import suppress
from pathlib import Path

from anyio import to_thread
from pydantic import TypeAdapter, ValidationError

from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.error import GitError
from forkjoin.core.model import Agent, PauseKind
from forkjoin.core.paths import Home
from forkjoin.git.refs import find_tip
from forkjoin.store.damage_detection import note_damage, set_aside_copies
from forkjoin.store.rows import About, Asked, Restored
from forkjoin.store.store import Store

log = logging.getLogger(__name__)

_ATTEMPT = re.compile(r"a([1-9]\d{0,8})-([1-9]\d{0,8})")
_WORKTREE = re.compile(r"a([1-9]\d{0,8})-.*")
_ASKED = TypeAdapter(Asked)


def save_requested_end(home: Home, agent: Agent) -> None:
    """Save in the attempt's folder that the agent was asked to stop or to pause.

    Nothing is saved if it was not asked. Blocks.

    The caller ends the agent's program afterwards. If the records are lost, `restore` reads the file, so that the agent
    does not start again.
    """
    is_ending = agent.phase is PauseKind.ENDING
    if not (agent.stop_asked or is_ending):
        return
    asked = Asked(agent.stop_asked, is_ending, agent.pause.reason, agent.pause.why, agent.pause.not_before)
    with suppress(OSError):  # the attempt has no folder because it never started, or the disk is full
        write_atomically(_asked(home, agent.handle), _ASKED.dump_json(asked))


def _asked(home: Home, handle: str) -> Path:
    return home.attempts / handle / "asked.json"


async def restore(home: Home, store: Store) -> None:
    """Restore the records of agents that are missing, and reserve their numbers.

    While a copy of a damaged database exists, each agent of whose attempts files exist but no record is missing.
    Otherwise only an agent with a number that the records have not assigned yet is missing, as after the loss of all
    records. An agent with a lower number and no record was deleted by retention.
    """
    handed_out, known = await store.restored_agents.known_numbers()
    damaged = bool(await to_thread.run_sync(set_aside_copies, home.records))
    abouts, highest = await to_thread.run_sync(_scan_attempts, home)
    lost = [
        Restored(number, attempt, about, _read_asked(home, number, attempt), await _is_removed(about))
        for number, (attempt, about) in abouts.items()
        if number not in known and (damaged or number > handed_out)
    ]
    if not lost and highest <= handed_out:
        return
    restored = ", ".join(f"a{record.number}" for record in lost) or "none"
    log.warning("agents restored from the files of their attempts: %s", restored)
    if not damaged:
        await to_thread.run_sync(note_damage, home.records)
    await store.restored_agents.add(lost, highest)


def _scan_attempts(home: Home) -> tuple[dict[int, tuple[int, About]], int]:
    """Return the newest attempt of each agent, and the highest agent number found.

    Blocks.

    Returns:
        By agent number, the number of the newest attempt whose `about.json` can be read, and its content. Then the
        highest number of an agent that has an attempt's folder or a worktree.
    """
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


def _read_asked(home: Home, number: int, attempt: int) -> Asked:
    """Return what `save_requested_end` saved for this attempt.

    If nothing was saved, but the file `cancel` shows that forkjoin ended the program, the agent counts as stopped.
    """
    file = _asked(home, f"a{number}-{attempt}")
    with suppress(OSError, ValidationError):
        return _ASKED.validate_json(file.read_bytes())
    return Asked(stop_asked=file.with_name("cancel").exists())


async def _is_removed(about: About) -> bool:
    """Return whether the agent was removed: its worktree and branch are both gone."""
    if await to_thread.run_sync(Path(about.worktree).exists):
        return False
    with suppress(GitError, OSError):
        return await find_tip(about.project, f"refs/heads/{about.branch}") is None
    return False
