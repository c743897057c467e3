"""Running a verify command: an attempt like any other, `sh -c` in a worktree, for an agent's end or a landing.

A run that was lost, with the machine or its shim, says nothing of the work: it is made once more, under a handle of
its own.
"""

from collections.abc import Mapping
from dataclasses import replace

from forkjoin.attempt.executor import AttemptSpec, Executor
from forkjoin.model import Outcome
from forkjoin.redact import redact, secrets_of

#: Bytes of the end of what it printed that are told: that is where it says what went wrong.
_WORDS = 4_000
#: Until what a lost run has left behind is ended by force.
_GRACE_S = 1.0


def handles(handle: str) -> tuple[str, str]:
    """The handles of a verify's first run and of its second, which is seldom needed."""
    return handle, f"{handle}-2"


async def run_verify(
    executor: Executor,
    handle: str,
    command: str,
    cwd: str,
    environment: Mapping[str, str],
    minutes: float,
    log_bytes: int,
) -> tuple[Outcome, str]:
    """How the command went, and the end of what it printed, stdout and stderr as in a terminal.

    With a handle that was used before, that run is what is told of.
    """
    first, second = handles(handle)
    spec = AttemptSpec(
        handle=first,
        argv=("/bin/sh", "-c", command),
        cwd=cwd,
        environment=environment,
        timeout_s=minutes * 60,
        together=True,
        log_bytes=log_bytes,
    )
    outcome, printed = await _run(executor, spec)
    if outcome.kind in ("lost", "not_started"):
        outcome, printed = await _run(executor, replace(spec, handle=second))
    return outcome, printed


async def _run(executor: Executor, spec: AttemptSpec) -> tuple[Outcome, str]:
    await executor.submit(spec)
    outcome = await executor.outcome(spec.handle)
    if outcome.kind == "lost":  # its shim is gone, what it ran may not be
        await executor.cancel(spec.handle, _GRACE_S)
    printed = await executor.read_output(spec.handle, -_WORDS, _WORDS)
    return outcome, redact(printed.data.decode(errors="replace"), secrets_of(spec.environment)).strip()
