"""Any program: the task on its stdin and in `$FORKJOIN_TASK_FILE`; its stdout is its log, its exit code all it says.

With exit code 75 (EX_TEMPFAIL, sysexits(3)) it asks to be started again later.
"""

from collections.abc import Mapping, Sequence

from forkjoin.adapters.contract import AgentContext, AttemptEnd, Conclusion, ProgramStart, Retry
from forkjoin.core.event import Event
from forkjoin.core.settings import AgentProgram

TAKES_TURNS: bool = False
MAKES_EVENTS: bool = False
KEEPS_PERMISSIONS: bool = False

_TRY_AGAIN = 75


def account(environment: Mapping[str, str]) -> str:  # noqa: ARG001
    return ""  # we know nothing of any


def start(context: AgentContext, program: AgentProgram) -> ProgramStart:
    return ProgramStart(tuple(program.command), context.task.encode(), closed=True)


def resume(context: AgentContext, program: AgentProgram, text: str) -> ProgramStart | None:  # noqa: ARG001
    return None


def converse(context: AgentContext, program: AgentProgram) -> ProgramStart | None:  # noqa: ARG001
    return None


def encode_turn(text: str, key: str = "") -> bytes:
    raise NotImplementedError(f"a command takes its task alone, not {text[:40]!r}")


def read(line: bytes) -> Sequence[Event]:  # noqa: ARG001
    return ()


def read_beginning(beginning: bytes) -> Sequence[Event]:  # noqa: ARG001
    return ()


def conclude(ended: AttemptEnd) -> Conclusion:
    if ended.outcome.ok:
        return Conclusion(ok=True, output=ended.output)
    last_words = ended.errors.strip() or ended.output.strip()
    error = f"{ended.outcome}\n{last_words}".strip()
    asks_for_another = ended.outcome.kind == "exited" and ended.outcome.code == _TRY_AGAIN
    retry = Retry.LATER if asks_for_another else Retry.NO
    return Conclusion(ok=False, output=ended.output, error=error, retry=retry)
