"""A process that carries out a landing, as a daemon does, and falls on the way: `lander.py NUMBER [WHEN N WHAT FELL]`.

It falls `before`, `within` or `after` the Nth record of the step WHAT, as a daemon does in the crash test; or, `at` the
Nth change that it makes itself of a file below the folder WHAT, just before that.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
from forkjoin import main
from forkjoin.landing.land import Lander
from forkjoin.main import open_loop
from forkjoin.paths import find_home

sys.path.append(str(Path(__file__).parents[1]))
from crash.with_fail_points import arm

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


#: A shim that outlives this process starts no daemon: what one would do the test does.
setattr(main, "daemon_command", lambda: ["true"])  # noqa: B010 (it is not main's own)


async def land(number: int) -> None:
    async with open_loop(find_home()) as loop:
        match sys.argv[2:]:
            case ["at", at, folder]:
                fall_at_change(int(at), folder)
            case [when, step_number, step, fell]:
                arm(when, int(step_number), step, fell)
            case _:
                pass
        environment = {"PATH": os.environ["PATH"], "LANDER": str(os.getpid())}
        await Lander(loop.rooms).land(await loop.store.landing(number), environment)


anyio.run(land, int(sys.argv[1]))
