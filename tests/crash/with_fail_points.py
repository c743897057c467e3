"""A daemon that kills itself: `with_fail_points.py WHEN N STEP FELL` is `forkjoin daemon run` until it records a step.

It is the Nth of the steps called STEP, or of all where that is `any`. The one place where a step is recorded is the
database's `write`; it is wrapped here, and nowhere in forkjoin itself. The daemon falls `before` it, `within` its
transaction, or `after` it, and leaves a line in the file FELL just before that.
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
    """Let this process fall at the step of this number."""
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
