"""A process that removes agents as a daemon does, and kills itself at a chosen step."""

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

#: Audit events (PEP 578) of changes to files, and of calls of git.
_STEPS = ("os.remove", "os.rmdir", "os.rename", "shutil.rmtree", "subprocess.Popen")
#: While a folder is removed, only every tenth removal of a file or folder in it counts as a step.
_ONE_OF = 10


def remove_elsewhere(discard: bool, falls_at: int) -> bool:
    """Remove all agents in another process, which kills itself at its Nth step.

    Steps count from the record of the removal.

    Returns:
        Whether the process killed itself. Otherwise it completed the removal in fewer than N steps.
    """
    process = PROCESSES.Process(target=_carry_out, args=(dict(os.environ), discard, falls_at))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _carry_out(environment: Mapping[str, str], discard: bool, falls_at: int) -> None:
    os.environ.clear()
    os.environ.update(environment)
    setattr(app, "daemon_command", lambda: ["true"])  # noqa: B010 (mypy rejects assignment: app only imports the name)
    anyio.run(_remove, discard, falls_at)


async def _remove(discard: bool, falls_at: int) -> None:
    async with open_reconciler(find_home()) as reconciler:
        agents = await reconciler.store.agents.page(1, everything=True)
        _fall_once_recorded(reconciler.store, falls_at)
        await remove_agents(
            reconciler.services, agents, discard_unmerged=discard, environment={"PATH": os.environ["PATH"]}
        )
        os._exit(0)  # closing the reconciler is not part of the removal


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

    setattr(store.lifecycle, "begin_removal", record_and_look)  # noqa: B010 (mypy rejects assignment to a method)
