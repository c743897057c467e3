"""Running a command line: an attempt like any other, `sh -c` in a worktree, for an agent or a landing.

A run that was lost, with the machine or its shim, says nothing of the work: it is made once more, under a handle of
its own. Where the machine has no room for that one either, nothing was run.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from forkjoin.core.model import UNLIMITED, Outcome, TreeLimits
from forkjoin.core.redaction import redact_end, secrets_of
from forkjoin.process.executor import AttemptSpec, Executor, read_end

#: Bytes of the end of what it printed that are told: that is where it says what went wrong.
_WORDS = 4_000
#: Until what a lost run has left behind is ended by force.
_GRACE_S = 1.0


class CommandRun(NamedTuple):
    """How a command line went, and the end of what it printed: stdout and stderr as in a terminal, or stdout alone."""

    outcome: Outcome
    printed: str


def handles(handle: str, *kinds: str) -> list[str]:
    """The handles of the first runs of these kinds, and of their second ones, which are seldom needed."""
    return [name for kind in kinds for name in (f"{handle}-{kind}", f"{handle}-{kind}-2")]


@dataclass(frozen=True, slots=True)
class Shell:
    """Where command lines are run for somebody, who is known by a handle, and in which environment."""

    executor: Executor
    handle: str
    cwd: str
    environment: Mapping[str, str]
    log_bytes: int
    limits: TreeLimits = UNLIMITED

    async def run(self, kind: str, command: str, minutes: float, *words: str, apart: bool = False) -> CommandRun:
        """How the command line of this kind went, which finds the words as $1, $2 …

        With a kind that was run before, that run is what is told of.

        Raises:
            OSError: There is no room for it now; it may be run again.
        """
        first, second = handles(self.handle, kind)
        spec = AttemptSpec(
            handle=first,
            argv=("/bin/sh", "-c", command, "sh", *words),
            cwd=self.cwd,
            environment=self.environment,
            timeout_s=minutes * 60,
            together=not apart,
            log_bytes=self.log_bytes,
            limits=self.limits,
        )
        ran = await self._run(spec)
        if ran.outcome.kind not in ("lost", "not_started"):
            return ran
        ran = await self._run(replace(spec, handle=second))
        if ran.outcome.passing:
            for name in (first, second):
                await self.executor.forget(name)
            raise OSError(errno.EAGAIN, f"{kind} {ran.outcome}")
        return ran

    async def _run(self, spec: AttemptSpec) -> CommandRun:
        await self.executor.submit(spec)
        outcome = await self.executor.outcome(spec.handle)
        if outcome.kind == "lost":  # its shim is gone, what it ran may not be
            await self.executor.cancel(spec.handle, _GRACE_S)
        redact = partial(redact_end, secrets=secrets_of(spec.environment))
        return CommandRun(outcome, (await read_end(self.executor, spec.handle, _WORDS, redact)).text.strip())
