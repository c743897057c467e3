"""The outcomes of processes that an executor ran."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt's process ended, as its executor reports it.

    The kind `lost` means that the machine or the shim died and left no end record.
    """

    kind: Literal["exited", "signalled", "not_started", "timed_out", "limited", "lost"]
    code: int = 0  #: exit code or signal number
    error: str = ""  #: why the start failed, how the process was lost, or which limit ended it
    duration_s: float = 0
    #: descendants of the process that could not be ended; `left` in end.json
    survivors: Annotated[tuple[str, ...], Field(alias="left")] = ()
    peak_memory_bytes: int | None = None  #: the highest memory use measured; None if it was not measured
    #: whether the start failed for a transient reason, before the program ran; `passing` in end.json
    is_transient: Annotated[bool, Field(alias="passing")] = False
    asked: bool = False  #: whether the process was asked to end

    @property
    def ok(self) -> bool:
        return self.kind == "exited" and self.code == 0

    def __str__(self) -> str:
        match self.kind:
            case "exited":
                return f"exit {self.code}"
            case "signalled":
                return f"killed by signal {self.code}"
            case "not_started":
                return f"could not be started: {self.error}"
            case "timed_out" | "limited":
                return f"ended {self.error or 'by its time limit'}"
            case "lost":
                why = self.error or "the machine went down, or its supervisor was killed"
                return f"lost, without an end record: {why}"
