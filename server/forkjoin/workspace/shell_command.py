"""Running shell commands such as setup and verify in a worktree, under a shim like an agent's program.

A run that was lost, because the machine or the shim ended, says nothing about the work. So the command runs once more,
with another handle.
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from forkjoin.core.outcome import Outcome
from forkjoin.core.redaction import redact_end, secrets_of
from forkjoin.core.tree_limits import UNLIMITED, TreeLimits
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.executor import Executor, read_tail

#: The bytes of the end of the output that are returned. Errors are usually at the end.
_OUTPUT_BYTES = 4_000
#: Seconds until processes that a lost run left behind are killed.
_GRACE_S = 1.0


class CommandRun(NamedTuple):
    """The outcome of a shell command, and the end of its output.

    The output has stdout and stderr as in a terminal, or only stdout.
    """

    outcome: Outcome
    printed: str


def run_handles(handle: str, *kinds: str) -> list[str]:
    """Return the handles of the first and second runs of these kinds of commands."""
    return [name for kind in kinds for name in (f"{handle}-{kind}", f"{handle}-{kind}-2")]


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs shell commands in one folder and environment."""

    executor: Executor
    handle: str  #: prefix of the handles of the commands
    cwd: str
    environment: Mapping[str, str]
    log_bytes: int
    limits: TreeLimits = UNLIMITED

    async def run(self, kind: str, command: str, minutes: float, *words: str, apart: bool = False) -> CommandRun:
        """Run a shell command, or return the outcome if its kind has run already.

        Args:
            kind: Becomes part of the handle.
            minutes: The time limit.
            words: The command's arguments: $1, $2 and so on.
            apart: Whether to keep stderr apart from stdout.

        Raises:
            OSError: The machine has no free resources now. The command may be run again.
        """
        first, second = run_handles(self.handle, kind)
        spec = AttemptSpec(
            handle=first,
            argv=("/bin/sh", "-c", command, "sh", *words),
            cwd=self.cwd,
            environment=self.environment,
            timeout_s=minutes * 60,
            stderr_to_stdout=not apart,
            log_bytes=self.log_bytes,
            limits=self.limits,
        )
        ran = await self._run(spec)
        if ran.outcome.kind not in ("lost", "not_started"):
            return ran
        ran = await self._run(replace(spec, handle=second))
        if ran.outcome.is_transient:
            for name in (first, second):
                await self.executor.forget(name)
            raise OSError(errno.EAGAIN, f"{kind} {ran.outcome}")
        return ran

    async def _run(self, spec: AttemptSpec) -> CommandRun:
        await self.executor.submit(spec)
        outcome = await self.executor.outcome(spec.handle)
        if outcome.kind == "lost":  # its shim is gone, but its processes may still run
            await self.executor.cancel(spec.handle, _GRACE_S)
        redact = partial(redact_end, secrets=secrets_of(spec.environment))
        return CommandRun(outcome, (await read_tail(self.executor, spec.handle, _OUTPUT_BYTES, redact)).text.strip())
