"""What a process does that removes agents, as a daemon does, and falls on the way."""

import itertools
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import anyio
from forkjoin import app
from forkjoin.agents.remove import remove_agents
from forkjoin.app import open_reconciler
from forkjoin.core.model import Agent
from forkjoin.core.paths import find_home
from forkjoin.store.store import Store
from support.merges import PROCESSES

#: Events (PEP 578) of what changes something, and of a call of git.
_STEPS = ("os.remove", "os.rmdir", "os.rename", "shutil.rmtree", "subprocess.Popen")
#: Of the files and folders that are removed in a folder which goes, one of so many counts.
_ONE_OF = 10


def remove_elsewhere(discard: bool, falls_at: int) -> bool:
    """Let another process remove all agents, and fall at its step of this number after that was recorded.

    Returns:
        Whether it fell; else it came to its end before.
    """
    process = PROCESSES.Process(target=_carry_out, args=(dict(os.environ), discard, falls_at))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _carry_out(environment: Mapping[str, str], discard: bool, falls_at: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    setattr(app, "daemon_command", lambda: ["true"])  # noqa: B010 (it is not main's own)
    anyio.run(_remove, discard, falls_at)


async def _remove(discard: bool, falls_at: int) -> None:
    async with open_reconciler(find_home()) as reconciler:
        agents = await reconciler.store.agents.page(1, everything=True)
        _fall_once_recorded(reconciler.store, falls_at)
        await remove_agents(
            reconciler.services, agents, discard_unmerged=discard, environment={"PATH": os.environ["PATH"]}
        )
        os._exit(0)  # what follows is no step of it


def _fall_once_recorded(store: Store, falls_at: int) -> None:
    steps, within, record = itertools.count(1), itertools.count(), store.lifecycle.begin_removal

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _STEPS or (event in _STEPS[:2] and arguments[-1] != -1 and next(within) % _ONE_OF):
            return
        if next(steps) == falls_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def record_and_look(*arguments: Any) -> list[Agent]:
        busy = await record(*arguments)
        sys.addaudithook(look)
        return busy

    setattr(store.lifecycle, "begin_removal", record_and_look)  # noqa: B010 (it has another type)
