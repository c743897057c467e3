"""Running a verify command: an attempt like any other, `sh -c` in a worktree, for an agent's end or a landing."""

from collections.abc import Mapping

from forkjoin.attempt.executor import AttemptSpec, Executor
from forkjoin.model import Outcome
from forkjoin.redact import redact, secrets_of

#: Bytes of the end of what it printed that are told: that is where it says what went wrong.
_WORDS = 4_000


async def run_verify(
    executor: Executor, handle: str, command: str, cwd: str, environment: Mapping[str, str], minutes: float
) -> tuple[Outcome, str]:
    """How the command went, and the end of what it printed, stdout and stderr as in a terminal.

    With a handle that was used before, that run is what is told of.
    """
    spec = AttemptSpec(
        handle=handle,
        argv=("/bin/sh", "-c", command),
        cwd=cwd,
        environment=environment,
        timeout_s=minutes * 60,
        together=True,
    )
    await executor.submit(spec)
    outcome = await executor.outcome(handle)
    printed, _ = await executor.read_output(handle, -_WORDS, _WORDS)
    return outcome, redact(printed.decode(errors="replace"), secrets_of(environment)).strip()
