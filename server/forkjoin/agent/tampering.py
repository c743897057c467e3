"""What changed in the shared git configuration and hooks while an agent was at work, for its result.

A snapshot is taken before each attempt, and kept in the home: a daemon that takes over compares with the same. What
changes between two attempts is nobody's blame. Who changed something during one is not known: others run at once.
"""

import json
from pathlib import Path
from typing import Any

from anyio import to_thread

from forkjoin.branch import shared_config
from forkjoin.branch.shared_config import Change, Snapshot
from forkjoin.model import Agent
from forkjoin.rooms import Rooms
from forkjoin.trust import digest

#: How many changes a result names.
_NAMED = 8
#: How many are kept until then.
_KEPT = 100


async def begin(rooms: Rooms, agent: Agent) -> None:
    """Take the snapshot that this attempt is compared with, unless that was done."""
    common_dir = (await rooms.store.project_numbered(agent.project)).common_dir
    file = _file(rooms, common_dir, agent)
    noted = await to_thread.run_sync(_read, file)
    if noted.get("attempt") != agent.attempt:
        now = await to_thread.run_sync(lambda: shared_config.take(common_dir, user=True))
        await _note(file, agent, now, noted.get("found", []))


async def find_warnings(rooms: Rooms, agent: Agent) -> list[str]:
    """Return a sentence for each change during this attempt, and those before it that no result has told."""
    common_dir = (await rooms.store.project_numbered(agent.project)).common_dir
    file = _file(rooms, common_dir, agent)
    noted = await to_thread.run_sync(_read, file)
    if noted.get("attempt") != agent.attempt:
        return []
    now = await to_thread.run_sync(lambda: shared_config.take(common_dir, user=True))
    changes = await shared_config.compare(shared_config.from_json(noted["snapshot"]), now)
    found: list[str] = noted["found"] + [_say(agent, change) for change in changes]
    if changes:
        await _note(file, agent, now, found)
    more = [f"… and {len(found) - _NAMED} more such changes; forkjoin trust shows them"] if len(found) > _NAMED else []
    return [*found[:_NAMED], *more]


async def forget(rooms: Rooms, agent: Agent) -> None:
    """Forget what was noted of an agent, once its result has told it."""
    common_dir = (await rooms.store.project_numbered(agent.project)).common_dir
    await to_thread.run_sync(lambda: _file(rooms, common_dir, agent).unlink(missing_ok=True))


def _say(agent: Agent, change: Change) -> str:
    """Return a change as a result tells it. Whose it was is not known."""
    if change.is_users:
        return f"The user's own git configuration changed while {agent.id} ran: {change}"
    remedy = "A person accepts that, or puts it back, with: forkjoin trust"
    return f"Shared by all worktrees and the user's own git, and changed while {agent.id} ran: {change}. {remedy}"


def _file(rooms: Rooms, common_dir: str, agent: Agent) -> Path:
    return rooms.home.shared_config / digest(common_dir) / f"{agent.id}.json"


def _read(file: Path) -> dict[str, Any]:
    """Return what was noted of an agent; an empty dict where nothing was, or a machine that went down damaged it."""
    try:
        noted: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return noted


async def _note(file: Path, agent: Agent, snapshot: Snapshot, found: list[str]) -> None:
    noted = {"attempt": agent.attempt, "snapshot": shared_config.as_json(snapshot), "found": found[:_KEPT]}
    await to_thread.run_sync(shared_config.write_json, file, noted)
