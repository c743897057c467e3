"""Fault 18: an older schema is migrated, with a backup. A newer schema is refused, and stays unchanged."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from forkjoin.core.agent_spec import SpecParts
from forkjoin.core.error import CallerError
from forkjoin.core.event import TurnEnded
from forkjoin.core.model import Pause, PauseKind, PauseReason
from forkjoin.core.paths import Home
from forkjoin.store.damage_detection import set_aside_copies, suspect
from forkjoin.store.rows import Others
from forkjoin.store.store import open_store
from support.harness import forkjoin
from support.records import NOBODY, fill, new_agent, place

_FOLDER = resources.files("forkjoin.store") / "migrations"
MIGRATIONS = sorted((path for path in _FOLDER.iterdir() if path.name.endswith(".sql")), key=lambda path: path.name)
FIRST = MIGRATIONS[0].read_text("utf-8")
SPEC = '{"agent":"sh","verify":"true","task":"say \\"hi\\"\\n\\tto 🦊","name":"old"}'


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Records of the first release, with one agent."""
    file = tmp_path / "records.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN;{FIRST};PRAGMA user_version = 1;COMMIT;")
        connection.execute("INSERT INTO project VALUES (1, '/repository/.git')")
        connection.execute(
            "INSERT INTO agent (project, lead, name, spec, state, merge, priority, base, branch, worktree, checkout, "
            "conversation, environment, created) VALUES (1, 'lead', 'old', ?, 'queued', 'unmerged', 0, '0', 'b', 'w', "
            "'', 'c', 'e', 0)",
            (SPEC,),
        )
    connection.close()
    return file


async def test_records_of_the_first_release_are_migrated_and_a_backup_is_kept(old: Path) -> None:
    (old.parent / "records.sqlite.before-1").write_bytes(b"an older copy")
    store = await open_store(old)
    agent = await store.agents.get(1)
    assert (agent.name, agent.spec) == ("old", SpecParts(agent="sh", verify="true"))
    assert await store.agents.task(1) == 'say "hi"\n\tto 🦊'
    await store.close()
    (copy,) = old.parent.glob("records.sqlite.before-*")
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT spec FROM agent").fetchone() == (SPEC,)
    connection.close()


async def test_salvaged_records_of_the_first_release_are_migrated(old: Path) -> None:
    suspect(old)
    store = await open_store(old)
    assert len(set_aside_copies(old)) == 1
    assert (await store.agents.get(1)).name == "old"
    assert await store.agents.task(1) == 'say "hi"\n\tto 🦊'
    await store.close()


def test_migrations_are_numbered_without_gaps_and_released_numbers_stay() -> None:
    assert [int(path.name[:3]) for path in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert MIGRATIONS[8].name == "009_join.sql"


async def test_records_without_dependencies_and_candidates_are_migrated(old: Path) -> None:
    steps = [path.read_text("utf-8") for path in MIGRATIONS[1:9]]
    with sqlite3.connect(old) as connection:
        connection.executescript("\n".join(["BEGIN;", *steps, "PRAGMA user_version = 9;", "COMMIT;"]))
    connection.close()
    store = await open_store(old)
    agent = await store.agents.get(1)
    assert (
        agent.name,
        agent.dependencies.after,
        agent.dependencies.best_of,
        agent.dependencies.base_agents,
        agent.candidates.first,
    ) == ("old", (), (), (), 0)
    stacked = replace(new_agent("new"), after=Others((1,)), base_agents=Others((1,)))
    (new,) = await store.lifecycle.spawn([stacked], place, NOBODY)
    assert (new.number, new.dependencies.after, new.dependencies.base_agents) == (2, (1,), (1,))
    await store.close()


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("a person is in its conversation", PauseReason.PERSON_ATTACHED),
        ("a person was in its conversation", PauseReason.PERSON_LEFT),
        ("memory is short", PauseReason.MEMORY),
        ("its budget of 0.3 USD is used up; set_budget raises it", PauseReason.BUDGET),
        ("API Error: 529", None),
    ],
)
async def test_a_pause_of_version_0_1_gets_the_code_of_its_reason(
    old: Path, why: str, reason: PauseReason | None
) -> None:
    steps = [path.read_text("utf-8") for path in MIGRATIONS[1:18]]
    with sqlite3.connect(old) as connection:
        connection.executescript("\n".join(["BEGIN;", *steps, "PRAGMA user_version = 18;", "COMMIT;"]))
        connection.execute("UPDATE agent SET state = 'paused', ending = 1, paused_why = ?, not_before = 7", (why,))
    connection.close()
    store = await open_store(old)
    agent = await store.agents.get(1)
    assert agent.pause == Pause(reason, why, PauseKind.ENDING, not_before=7)
    assert agent.pause.why == why
    await store.close()


async def test_a_turn_of_version_0_1_that_ended_with_an_error_is_recorded_as_failed(old: Path) -> None:
    with sqlite3.connect(old) as connection:
        connection.execute("INSERT INTO event VALUES (1, 1000, 1, 0, 'turn_ended', '(error) no', 0)")
    connection.close()
    store = await open_store(old)
    assert await store.events.last_turn(await store.agents.get(1)) == TurnEnded(ok=False, output="no")
    await store.close()


BEFORE_THE_COPY_IS_WHOLE = """
import os, signal, sys
from pathlib import Path
from forkjoin.store import database_migration
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
database_migration.open_database(Path(sys.argv[1]))
"""
WITHIN_A_MIGRATION = """
import os, signal, sys
from pathlib import Path
from forkjoin.store import database_migration
steps, connect = database_migration._migrations(), database_migration._connect
def connect_to_be_killed(file):
    connection = connect(file)
    connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return connection
database_migration._connect = connect_to_be_killed
database_migration._migrations = lambda: [steps[0], steps[1] + "; SELECT die();"]
database_migration.open_database(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("script", [BEFORE_THE_COPY_IS_WHOLE, WITHIN_A_MIGRATION], ids=["copy", "migration"])
async def test_a_kill_during_a_migration_loses_no_records(old: Path, script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script, str(old)], check=False)
    assert done.returncode == -signal.SIGKILL
    store = await open_store(old)
    assert await store.agents.task(1) == 'say "hi"\n\tto 🦊'
    await store.close()
    assert len(list(old.parent.glob("*.before-*"))) == 1


async def test_a_newer_schema_is_refused_and_database_and_log_stay_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "records.sqlite"
    store = await open_store(file)
    await fill(store, 3)
    store.database.connection.execute("PRAGMA user_version = 99")  # only the log holds this change
    newer = tmp_path / "newer" / "records.sqlite"
    newer.parent.mkdir()
    names = [newer.with_name(f"{newer.name}{end}") for end in ("", "-wal")]
    for name in names:
        shutil.copy(file.with_name(name.name), name)
    await store.close()
    before = [name.read_bytes() for name in names]
    with pytest.raises(CallerError, match="newer forkjoin \\(schema 99"):
        await open_store(newer)
    assert [name.read_bytes() for name in names] == before


def test_the_command_line_reports_a_newer_schema(repository: Path, home: Home) -> None:
    with sqlite3.connect(home.records) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = home.records.read_bytes()
    done = forkjoin(repository, "ps", check=False)
    assert done.returncode == 1
    assert "was written by a newer forkjoin (schema 99" in done.stderr
    assert home.records.read_bytes() == before


async def test_all_files_are_private_to_the_user_under_any_umask(tmp_path: Path, old: Path) -> None:
    umask = os.umask(0)
    try:
        folder = tmp_path / "home"
        Home(folder, folder).make()
        for file in (folder / "records.sqlite", old):
            store = await open_store(file)
            await store.projects.get_or_add("/repository/.git")
            await store.lifecycle.spawn([new_agent("first")], place, NOBODY)
            made = [one for one in file.parent.glob("records.sqlite*") if "before" not in one.name]
            assert {one.name for one in made} == {f"records.sqlite{end}" for end in ("", "-wal", "-shm")}
            modes = {one: stat.S_IMODE(one.stat().st_mode) for one in file.parent.glob("records.sqlite*")}
            assert set(modes.values()) == {0o600}, modes
            await store.close()
        assert {stat.S_IMODE(one.stat().st_mode) for one in (folder, *folder.iterdir()) if one.is_dir()} == {0o700}
    finally:
        os.umask(umask)
