"""The adapter for any program: its stdout is its log, and its exit code is its result.

The program gets the task on stdin; forkjoin also writes it to the file `$FORKJOIN_TASK_FILE`. With exit code 75
(EX_TEMPFAIL, sysexits(3)) the program asks forkjoin to start it again later.
"""

from collections.abc import Mapping, Sequence

from forkjoin.adapters.contract import AgentContext, AttemptEnd, Conclusion, ProgramStart, Retry
from forkjoin.core.event import Event
from forkjoin.core.settings import AgentProgram

TAKES_TURNS: bool = False
MAKES_EVENTS: bool = False
KEEPS_PERMISSIONS: bool = False

_EX_TEMPFAIL = 75


def account(environment: Mapping[str, str]) -> str:  # noqa: ARG001
    return ""  # forkjoin does not know which models the command calls


def start(context: AgentContext, program: AgentProgram) -> ProgramStart:
    return ProgramStart(tuple(program.command), context.task.encode(), closed=True)


def resume(context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:  # noqa: ARG001
    return None


def converse(context: AgentContext, program: AgentProgram) -> ProgramStart | None:  # noqa: ARG001
    return None


def encode_turn(text: str, key: str = "") -> bytes:
    raise NotImplementedError(f"a command takes no message while it runs, so {text[:40]!r} can't be sent")


def read(line: bytes) -> Sequence[Event]:  # noqa: ARG001
    return ()


def read_beginning(beginning: bytes) -> Sequence[Event]:  # noqa: ARG001
    return ()


def conclude(ended: AttemptEnd) -> Conclusion:
    if ended.outcome.ok:
        return Conclusion(ok=True, output=ended.output)
    end_of_output = ended.errors.strip() or ended.output.strip()
    error = f"{ended.outcome}\n{end_of_output}".strip()
    asks_for_retry = ended.outcome.kind == "exited" and ended.outcome.code == _EX_TEMPFAIL
    retry = Retry.LATER if asks_for_retry else Retry.NO
    return Conclusion(ok=False, output=ended.output, error=error, retry=retry)
