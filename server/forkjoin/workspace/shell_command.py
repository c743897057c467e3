"""Shell commands such as setup and verify, which run under a shim as an agent's program does.

A command that is lost, because the machine went down or the shim was killed, says nothing about the work. So it runs
once more, with another handle.
"""

import errno
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from forkjoin.core.outcome import Outcome
from forkjoin.core.redaction import redact_end, secrets_of
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.executor import Executor, read_tail

#: The most bytes of the output that are returned. They are its end, where errors usually are.
_OUTPUT_BYTES = 4_000
#: Seconds from SIGTERM to SIGKILL for the processes of a lost command.
_GRACE_S = 1.0


class CommandRun(NamedTuple):
    """The outcome of a shell command, and the end of its output."""

    outcome: Outcome
    printed: str


def run_handles(handle: str, *kinds: str) -> list[str]:
    """Return the handles of commands of these kinds, each with that of its second run.

    Args:
        handle: The handle of the workspace.
    """
    return [name for kind in kinds for name in (f"{handle}-{kind}", f"{handle}-{kind}-2")]


async def run_command(executor: Executor, spec: AttemptSpec) -> CommandRun:
    """Run a shell command. If it has run already, return how it ended.

    A command that is lost, or that no shim could start, runs a second time.

    Raises:
        OSError: The machine lacks resources to start the command. The caller may try again later.
    """
    ran = await _run_once(executor, spec)
    if ran.outcome.kind not in ("lost", "not_started"):
        return ran
    second = replace(spec, handle=f"{spec.handle}-2")
    ran = await _run_once(executor, second)
    if ran.outcome.is_transient:
        for name in (spec.handle, second.handle):
            await executor.forget(name)
        raise OSError(errno.EAGAIN, f"{spec.handle} {ran.outcome}")
    return ran


async def _run_once(executor: Executor, spec: AttemptSpec) -> CommandRun:
    await executor.submit(spec)
    outcome = await executor.outcome(spec.handle)
    if outcome.kind == "lost":  # without a shim, processes of the command may still run
        await executor.cancel(spec.handle, _GRACE_S)
    redact = partial(redact_end, secrets=secrets_of(spec.environment))
    return CommandRun(outcome, (await read_tail(executor, spec.handle, _OUTPUT_BYTES, redact)).text.strip())
