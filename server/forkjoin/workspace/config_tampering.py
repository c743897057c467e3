"""Changes in the shared git configuration and hooks while an agent, or the verify of a merge, runs.

The agent's result or the merge's answer warns of such changes. They are found by a comparison with a snapshot taken
before each attempt. The snapshot is kept in the home, so that a daemon that takes over uses the same snapshot. Changes
between two attempts are ignored. The author of a change is unknown, since other agents run at the same time.

The user's own ignore rules are saved before an agent's first attempt, until the worktree is removed. Files that only
newer rules ignore count as the agent's work.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyio import to_thread

from forkjoin.core.merge_job import MergeJob
from forkjoin.core.model import Agent
from forkjoin.core.regular_file import read_regular
from forkjoin.core.trust_records import digest
from forkjoin.git import config_snapshot
from forkjoin.git.config_comparison import ConfigChange, compare_snapshots
from forkjoin.git.config_snapshot import DAMAGED_SNAPSHOT_ERRORS, Snapshot, accepted_file
from forkjoin.git.git_config import find_users_ignore_file
from forkjoin.services import Services

#: The number of changes that a result names.
_NAMED = 8
#: The number of changes that are kept until then.
_KEPT = 100
#: The bytes of the user's own ignore rules that are kept.
_RULES = 1024 * 1024


async def take_snapshot(services: Services, whose: Agent | MergeJob) -> None:
    """Take the snapshot for this attempt or merge, unless it exists."""
    common_dir = (await services.store.projects.get(whose.project)).common_dir
    file = _file(services, common_dir, whose)
    noted = await to_thread.run_sync(_read_snapshot_file, file, whose)
    if noted.get("attempt") != _attempt(whose):
        now = await to_thread.run_sync(lambda: config_snapshot.take_config_snapshot(common_dir, user=True))
        await _note(file, whose, now, noted.get("found", []))
    if isinstance(whose, Agent):
        await _note_rules(file, common_dir, Path(whose.worktree.path))


async def find_tampering_warnings(services: Services, whose: Agent | MergeJob) -> list[str]:
    """Return a warning for each change since the snapshot.

    Changes during earlier attempts without a result are included. A further warning tells of a damaged snapshot or a
    damaged record of accepted configuration.
    """
    common_dir = (await services.store.projects.get(whose.project)).common_dir
    file = _file(services, common_dir, whose)
    noted = await to_thread.run_sync(_read_snapshot_file, file, whose)
    found: list[str] = noted.get("found", [])
    if noted.get("attempt") == _attempt(whose):
        now = await to_thread.run_sync(lambda: config_snapshot.take_config_snapshot(common_dir, user=True))
        changes = await compare_snapshots(noted["snapshot"], now)
        found += [_say(whose, change) for change in changes]
        if changes:
            await _note(file, whose, now, found)
    more = f"… and {len(found) - _NAMED} more such changes; forkjoin trust shows those of the repository"
    warnings = [*found[:_NAMED], *([more] if len(found) > _NAMED else [])]
    damage = await to_thread.run_sync(config_snapshot.find_snapshot_damage, accepted_file(services.home, common_dir))
    return [*warnings, damage] if damage else warnings


async def delete_snapshot(services: Services, whose: Agent | MergeJob) -> None:
    """Delete the snapshot and the changes, once a result or an answer names them."""
    common_dir = (await services.store.projects.get(whose.project)).common_dir
    await to_thread.run_sync(lambda: _file(services, common_dir, whose).unlink(missing_ok=True))


# -- ignore rules


async def _note_rules(file: Path, common_dir: str, worktree: Path) -> None:
    """Save the user's own ignore rules, unless they are saved already."""
    rules = file.with_suffix(".ignore")
    if not await to_thread.run_sync(rules.exists):
        own = await to_thread.run_sync(_read_rules, await find_users_ignore_file(common_dir, worktree))
        await to_thread.run_sync(config_snapshot.write_json, rules, {"own": own})


def _read_rules(file: Path) -> str:
    with suppress(OSError):
        return os.fsdecode(read_regular(file, _RULES) or b"")
    return ""


def _read_kept(file: Path) -> str | None:
    with suppress(*DAMAGED_SNAPSHOT_ERRORS):
        return str(json.loads(read_regular(file) or b"")["own"])
    return None


async def find_ignore_rules(services: Services, agent: Agent) -> bytes | None:
    """Return the worktree's trusted ignore rules, or `None` if unknown.

    The rules apply in addition to .gitignore. They are the user's own rules from before the agent started, the
    info/exclude that a person accepted, and the files that the worktree shares.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    own = await to_thread.run_sync(_read_kept, _file(services, common_dir, agent).with_suffix(".ignore"))
    file = accepted_file(services.home, common_dir)
    accepted = await to_thread.run_sync(config_snapshot.read_accepted, file)
    if own is None or (accepted is None and not await to_thread.run_sync(os.path.lexists, file)):
        return None
    everybodys = (accepted or {}).get("info/exclude")  # a damaged record accepts nothing
    shared = [f"/{name}" for name in (await services.store.projects.recipe(agent)).share]
    rules = [os.fsencode(own), (everybodys and everybodys.content) or b"", *map(os.fsencode, shared)]
    return b"\n".join(rules) + b"\n"


async def delete_ignore_rules(services: Services, agent: Agent) -> None:
    """Delete the saved ignore rules of a worktree, once it is removed."""
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    file = _file(services, common_dir, agent).with_suffix(".ignore")
    await to_thread.run_sync(lambda: file.unlink(missing_ok=True))


# -- the snapshot file


def _say(whose: Agent | MergeJob, change: ConfigChange) -> str:
    """Return a sentence about a change for a result or answer."""
    when = f"changed {_when(whose)}"
    if change.is_users:
        return f"The user's own git configuration {when}: {change}"
    remedy = "A person can accept or undo this with: forkjoin trust"
    return f"Shared by all worktrees and the user's own git, and {when}: {change}. {remedy}"


def _when(whose: Agent | MergeJob) -> str:
    return f"while {whose.id} ran" if isinstance(whose, Agent) else "while this merge was verified"


def _attempt(whose: Agent | MergeJob) -> int:
    return whose.attempt if isinstance(whose, Agent) else 1


def _file(services: Services, common_dir: str, whose: Agent | MergeJob) -> Path:
    name = whose.id if isinstance(whose, Agent) else f"merge-{whose.number}"
    return services.home.shared_config / digest(common_dir) / f"{name}.json"


def _read_snapshot_file(file: Path, whose: Agent | MergeJob) -> dict[str, Any]:
    """Return the content of a snapshot file, or an empty dict if the file is missing.

    If the file is damaged, the dict has only a warning, under "found".
    """
    try:
        noted: dict[str, Any] = json.loads(read_regular(file) or b"")
        return {**noted, "snapshot": config_snapshot.from_json(noted["snapshot"]), "found": [*map(str, noted["found"])]}
    except DAMAGED_SNAPSHOT_ERRORS:
        words = "forkjoin can't tell all that changed in shared configuration and hooks"
        return {"found": [f"{words} {_when(whose)}: {file} was damaged."]} if os.path.lexists(file) else {}


async def _note(file: Path, whose: Agent | MergeJob, snapshot: Snapshot, found: list[str]) -> None:
    noted = {"attempt": _attempt(whose), "snapshot": config_snapshot.to_json(snapshot), "found": found[:_KEPT]}
    await to_thread.run_sync(config_snapshot.write_json, file, noted)
