"""What a process does that carries out a landing, as a daemon does, and may fall on the way."""

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
#: Events of what changes something; so does an `open` that may write.
_CHANGES = ("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "shutil.copyfile")


def fall_at_change(number: int, folder: str) -> None:
    """Let this process fall at its change of this number below a folder (PEP 578)."""
    changes = itertools.count(1)

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        changing = event in _CHANGES or (event == "open" and int(arguments[2] or 0) & _WRITES)
        if changing and any(str(one).startswith(f"{folder}/") for one in arguments[:2]) and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def carry_out(number: int, environment: Mapping[str, str], falls: tuple[str, ...]) -> None:
    """Carry out a landing, all of it or until this process falls.

    That is `before`, `within` or `after` the Nth record of a step (`falls` is WHEN, N, STEP, FELL, as in the crash
    test); or `at` the Nth change that it makes itself below a folder, just before that (`at`, N, FOLDER).
    """
    os.environ.clear()
    os.environ.update(environment)
    # A shim that outlives this process starts no daemon: what one would do the test does.
    setattr(app, "daemon_command", lambda: ["true"])  # noqa: B010 (it is not main's own)
    anyio.run(_carry_out, number, falls)


async def _carry_out(number: int, falls: tuple[str, ...]) -> None:
    async with open_reconciler(find_home()) as reconciler:
        match falls:
            case ["at", at, folder]:
                fall_at_change(int(at), folder)
            case [when, at, step, fell]:
                arm(when, int(at), step, fell)
            case _:
                pass
        found = {"PATH": os.environ["PATH"], "LANDER": str(os.getpid())}
        await MergeRunner(reconciler.services).run(await reconciler.store.merges.get(number), found)
