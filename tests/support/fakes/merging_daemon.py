"""A process that runs a merge job as a daemon does, and may kill itself at a chosen step."""

import itertools
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import anyio
from crash.with_fail_points import arm
from forkjoin import app
from forkjoin.app import open_reconciler
from forkjoin.core.paths import find_home
from forkjoin.merge_queue.run_merge import MergeRunner

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
#: Audit events of changes to files. An `open` for writing is a change, too.
_CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "shutil.copyfile")


def fall_at_change(number: int, folder: str) -> None:
    """Make this process kill itself just before its Nth change below a folder."""
    changes = itertools.count(1)

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        changing = event in _CHANGES or (event == "open" and int(arguments[2] or 0) & _WRITES)
        if changing and any(str(one).startswith(f"{folder}/") for one in arguments[:2]) and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def run_job(number: int, environment: Mapping[str, str], falls: tuple[str, ...]) -> None:
    """Run a merge job, completely or until this process kills itself.

    `falls` says when the process kills itself. It is empty if the process should not:

    - (WHEN, N, STEP, FELL): `before`, `within` or `after` the Nth record of a step, as in crash/with_fail_points.py.
    - ("at", N, FOLDER): just before the Nth change that this process itself makes below a folder.
    """
    os.environ.clear()
    os.environ.update(environment)
    # A shim that outlives this process must not start a daemon, because the test does a daemon's work itself.
    setattr(app, "daemon_command", lambda: ["true"])  # noqa: B010 (mypy rejects assignment: app only imports the name)
    anyio.run(_run_job, number, falls)


async def _run_job(number: int, falls: tuple[str, ...]) -> None:
    async with open_reconciler(find_home()) as reconciler:
        match falls:
            case ["at", at, folder]:
                fall_at_change(int(at), folder)
            case [when, at, step, fell]:
                arm(when, int(at), step, fell)
            case _:
                pass
        found = {"PATH": os.environ["PATH"], "DAEMON": str(os.getpid())}
        await MergeRunner(reconciler.services).run(await reconciler.store.merges.get(number), found)
