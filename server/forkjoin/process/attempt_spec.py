"""The description of an attempt: what to run, and within which limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from forkjoin.core.tree_limits import UNLIMITED, TreeLimits


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """The program that an attempt runs, with its input, environment and limits."""

    handle: str  #: the attempt's name, see `Executor`
    argv: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]  #: all variables but the attempt's mark; never written to a disk
    input: bytes = b""  #: the first bytes for the program's stdin
    input_complete: bool = True  #: whether stdin is closed after `input`
    timeout_s: float | None = None  #: seconds after which the attempt is ended; `None`: no limit
    stderr_to_stdout: bool = False  #: whether stderr becomes a part of the output, as in a terminal
    silence_s: float | None = None  #: seconds without output after which it is ended; `None`: no limit
    log_bytes: int = 64 * 1024 * 1024  #: size to which the logs of stdout and stderr are cut; head and tail remain
    keep_unread_output: bool = False  #: whether only output before the offset of `release_output` may be cut
    limits: TreeLimits = UNLIMITED  #: the limits of this attempt alone
    #: the agent's record, kept in the attempt's folder in case the database is lost
    about: Mapping[str, object] = field(default_factory=dict[str, object])
