"""A daemon that kills itself when it records a chosen step.

`with_fail_points.py WHEN N STEP FELL` behaves like `forkjoin daemon run` until the Nth step called STEP, or the Nth of
all steps if STEP is `any`. The daemon kills itself before the step, within the step's transaction, or after it: WHEN is
`before`, `within` or `after`. Just before that, the daemon appends a line to the file FELL. forkjoin records every step
with `Database.write`, which this module wraps; forkjoin itself has no fail points.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from forkjoin.app import run_daemon
from forkjoin.store.database import Database


def arm(when: str, number: int, wanted: str, fell: str) -> None:
    """Make this process kill itself at its Nth record of the wanted step."""
    write: Callable[..., Any] = Database.write
    steps = itertools.count(1)

    def fall(step: str) -> None:
        with open(fell, "a") as file:
            file.write(f"{when} step {number}: {step}\n")
        os.kill(os.getpid(), signal.SIGKILL)

    async def write_or_fall(database: Database, step: str, act: Callable[..., Any], **named: Any) -> Any:
        if wanted not in ("any", step) or next(steps) != number:
            return await write(database, step, act, **named)
        if when == "before":
            fall(step)
        result = await write(database, step, _then(act, lambda: fall(step)) if when == "within" else act, **named)
        fall(step)
        return result

    setattr(Database, "write", write_or_fall)  # noqa: B010 (it has another signature)


def _then(act: Callable[..., Any], fall: Callable[[], None]) -> Callable[..., Any]:
    def act_and_fall(*arguments: Any) -> None:
        act(*arguments)
        fall()

    return act_and_fall


if __name__ == "__main__":
    arm(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
    sys.exit(run_daemon())
