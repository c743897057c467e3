"""Changes in the shared git configuration and hooks while an agent, or the verify of a merge, runs.

The agent's result or the merge's answer warns of such changes. To find them, the configuration is compared with a
snapshot from before the attempt. The snapshot is a file in the home, which the next daemon finds after a crash. Changes
between two attempts are ignored. It is unknown who made a change, since other agents run at the same time.

Before an agent's first attempt, the user's own ignore rules are saved. An agent can't hide files by changing them
later: only files that the saved rules ignore do not count as its work. They are deleted when the worktree is removed.
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

#: The most changes that a result or an answer names.
_NAMED = 8
#: The most warnings of earlier attempts that the snapshot file holds.
_KEPT = 100
#: The most bytes of the user's own ignore rules that are saved.
_RULES = 1024 * 1024


async def take_snapshot(services: Services, whose: Agent | MergeJob) -> None:
    """Take the snapshot for an agent's attempt or a merge, unless it exists already.

    For an agent, the user's ignore rules are saved too.
    """
    common_dir, file = await _find_file(services, whose)
    recorded = await to_thread.run_sync(_read_snapshot_file, file, whose)
    if recorded.get("attempt") != _attempt(whose):
        now = await to_thread.run_sync(lambda: config_snapshot.take_config_snapshot(common_dir, user=True))
        await _write_snapshot_file(file, whose, now, recorded.get("found", []))
    if isinstance(whose, Agent):
        await _save_users_rules(file, common_dir, Path(whose.worktree.path))


async def find_tampering_warnings(services: Services, whose: Agent | MergeJob) -> list[str]:
    """Return warnings of the changes since the snapshot.

    Those of the agent's earlier attempts are included if no result has named them. If the snapshot or the record of
    accepted configuration is damaged, a warning says so.
    """
    common_dir, file = await _find_file(services, whose)
    recorded = await to_thread.run_sync(_read_snapshot_file, file, whose)
    found: list[str] = recorded.get("found", [])
    if recorded.get("attempt") == _attempt(whose):
        now = await to_thread.run_sync(lambda: config_snapshot.take_config_snapshot(common_dir, user=True))
        changes = await compare_snapshots(recorded["snapshot"], now)
        found += [_describe_change(whose, change) for change in changes]
        if changes:
            await _write_snapshot_file(file, whose, now, found)
    more = f"… and {len(found) - _NAMED} more such changes; forkjoin trust shows those of the repository"
    warnings = [*found[:_NAMED], *([more] if len(found) > _NAMED else [])]
    damage = await to_thread.run_sync(config_snapshot.find_snapshot_damage, accepted_file(services.home, common_dir))
    return [*warnings, damage] if damage else warnings


async def delete_snapshot(services: Services, whose: Agent | MergeJob) -> None:
    """Delete the snapshot file with its warnings.

    Called once a result or an answer with these warnings is recorded.
    """
    _, file = await _find_file(services, whose)
    await to_thread.run_sync(lambda: file.unlink(missing_ok=True))


# -- ignore rules


async def _save_users_rules(file: Path, common_dir: str, worktree: Path) -> None:
    """Save the user's own ignore rules, unless they are saved already."""
    rules = file.with_suffix(".ignore")
    if not await to_thread.run_sync(rules.exists):
        own = await to_thread.run_sync(_read_users_rules, await find_users_ignore_file(common_dir, worktree))
        await to_thread.run_sync(config_snapshot.write_json, rules, {"own": own})


def _read_users_rules(file: Path) -> str:
    with suppress(OSError):
        return os.fsdecode(read_regular(file, _RULES) or b"")
    return ""


def _read_saved_rules(file: Path) -> str | None:
    with suppress(*DAMAGED_SNAPSHOT_ERRORS):
        return str(json.loads(read_regular(file) or b"")["own"])
    return None


async def find_ignore_rules(services: Services, agent: Agent) -> bytes | None:
    """Return the trusted ignore rules of an agent's worktree.

    With .gitignore they decide which files are the agent's work. They are the user's own rules from before the agent
    started, the info/exclude that a person has accepted, and the files that the worktree shares with the checkout.
    Return `None` if the first or the second can't be known.
    """
    common_dir, snapshot_file = await _find_file(services, agent)
    own = await to_thread.run_sync(_read_saved_rules, snapshot_file.with_suffix(".ignore"))
    file = accepted_file(services.home, common_dir)
    accepted = await to_thread.run_sync(config_snapshot.read_accepted, file)
    if own is None or (accepted is None and not await to_thread.run_sync(os.path.lexists, file)):
        return None
    exclude = (accepted or {}).get("info/exclude")  # `None` if the record of accepted files is damaged
    shared = [f"/{name}" for name in (await services.store.projects.recipe(agent)).share]
    rules = [os.fsencode(own), (exclude and exclude.content) or b"", *map(os.fsencode, shared)]
    return b"\n".join(rules) + b"\n"


async def delete_ignore_rules(services: Services, agent: Agent) -> None:
    """Delete the ignore rules that were saved for a worktree, which is removed."""
    _, file = await _find_file(services, agent)
    await to_thread.run_sync(lambda: file.with_suffix(".ignore").unlink(missing_ok=True))


# -- the snapshot file


def _describe_change(whose: Agent | MergeJob, change: ConfigChange) -> str:
    """Return the warning about a change."""
    when = f"changed {_when(whose)}"
    if change.is_users:
        return f"The user's own git configuration {when}: {change}"
    remedy = "A person can accept or undo this with: forkjoin trust"
    return f"Shared by all worktrees and the user's own git, and {when}: {change}. {remedy}"


def _when(whose: Agent | MergeJob) -> str:
    return f"while {whose.id} ran" if isinstance(whose, Agent) else "while this merge was verified"


def _attempt(whose: Agent | MergeJob) -> int:
    return whose.attempt if isinstance(whose, Agent) else 1


async def _find_file(services: Services, whose: Agent | MergeJob) -> tuple[str, Path]:
    """Return the repository's common git folder, and the file of the snapshot."""
    common_dir = (await services.store.projects.get(whose.project)).common_dir
    name = whose.id if isinstance(whose, Agent) else f"merge-{whose.number}"
    return common_dir, services.home.shared_config / digest(common_dir) / f"{name}.json"


def _read_snapshot_file(file: Path, whose: Agent | MergeJob) -> dict[str, Any]:
    """Return the content of a snapshot file, or an empty dict if the file is missing.

    If the file is damaged, the dict has only a warning, under "found".
    """
    try:
        recorded: dict[str, Any] = json.loads(read_regular(file) or b"")
        snapshot = config_snapshot.from_json(recorded["snapshot"])
        return {**recorded, "snapshot": snapshot, "found": [*map(str, recorded["found"])]}
    except DAMAGED_SNAPSHOT_ERRORS:
        words = "forkjoin can't tell all that changed in shared configuration and hooks"
        return {"found": [f"{words} {_when(whose)}: {file} was damaged."]} if os.path.lexists(file) else {}


async def _write_snapshot_file(file: Path, whose: Agent | MergeJob, snapshot: Snapshot, found: list[str]) -> None:
    recorded = {"attempt": _attempt(whose), "snapshot": config_snapshot.to_json(snapshot), "found": found[:_KEPT]}
    await to_thread.run_sync(config_snapshot.write_json, file, recorded)
