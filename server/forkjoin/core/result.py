"""The results of attempts."""

from dataclasses import dataclass
from enum import StrEnum

from forkjoin.core.model import State


class Verify(StrEnum):
    """The outcome of an attempt's verify command. `NONE` means that the command did not run."""

    PASSED = "passed"
    FAILED = "failed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of an attempt's model calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an attempt, in the same form for all vendors."""

    attempt: int
    state: State
    summary: str  #: the beginning of `output`, one line
    output: str  #: the program's last message, cut at `OUTPUT_LIMIT` characters
    commits: tuple[str, ...] = ()  #: newest first, "<short sha> <subject>"
    commit: str | None = None  #: the tip of the agent's branch
    files_changed: int = 0
    insertions: int = 0
    deletions: int = 0
    verify: Verify = Verify.NONE
    verify_output: str = ""
    score: float | None = None  #: the number that the spec's judge command printed
    cost_usd: float | None = None
    usage: Usage | None = None
    duration_s: float = 0
    peak_memory_bytes: int | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


#: Characters of a program's last message that a result keeps. The attempt's log holds the whole message.
OUTPUT_LIMIT = 16_000
