"""The words of forkjoin, known to every room: agents, their specs, states, attempts and results.

What enters from outside is a pydantic model (`Spec`); what lives inside is a frozen dataclass. An agent's id is its
number with an `a` before it (`a1`), and a number is never used again.
"""

import re
from collections.abc import Sized
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_AGENT_ID = re.compile(r"a[1-9]\d{0,17}")
_NAME_RULE = "1 to 64 letters, digits, '-' and '_', beginning with a letter or digit, and not like an id (a1)"
TASK_DESCRIPTION = "All the agent will know: goal, files, limits, acceptance. It sees nothing of this session."
NAME_DESCRIPTION = "Short and unique, e.g. fix-login; stands for the id. Default: from the task."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

#: A task is stored, hashed and fed whole; this is far beyond what any model reads.
TASK_LIMIT = 8 * 1024 * 1024


class State(StrEnum):
    """Where an agent stands. The last five are final, until a message queues its next attempt."""

    QUEUED = "queued"  #: it waits for its turn, for the first time or once more
    PREPARING = "preparing"  #: its worktree is being made
    RUNNING = "running"  #: its program runs
    PAUSED = "paused"  #: frozen, or between two attempts
    FINISHING = "finishing"  #: its program has ended; work is committed, counted and verified
    SUCCEEDED = "succeeded"  #: the program said so, and verify passed
    FAILED = "failed"  #: the program or verify failed, or it could not be prepared
    STOPPED = "stopped"  #: somebody asked for it
    TIMED_OUT = "timed_out"  #: its time limit, or its limit of silence, ended it
    LOST = "lost"  #: the machine or the shim vanished and left no end record


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.TIMED_OUT, State.LOST})

#: States that hold one of the `max_running` slots.
ACTIVE = frozenset({State.PREPARING, State.RUNNING, State.FINISHING})

#: Whose programs make model calls.
CALLING = ACTIVE - {State.FINISHING}

#: The one table of allowed moves; the store refuses every other.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PREPARING, State.FINISHING, State.STOPPED, State.FAILED}),
    State.PREPARING: frozenset({State.RUNNING, State.FINISHING, State.FAILED}),
    State.RUNNING: frozenset({State.PAUSED, State.FINISHING}),
    State.PAUSED: frozenset({State.RUNNING, State.PAUSED, State.QUEUED, State.FINISHING}),
    State.FINISHING: FINAL,
    **dict.fromkeys(FINAL, frozenset({State.QUEUED})),
}


class Merge(StrEnum):
    """How an agent's branch fared."""

    UNMERGED = "unmerged"  #: it has commits, or may yet
    QUEUED = "queued"  #: a landing has it
    MERGED = "merged"  #: it is in a target
    CONFLICTED = "conflicted"  #: the last merge of it met a conflict
    REJECTED = "rejected"  #: the last merge of it failed verify
    NOTHING = "nothing"  #: it ended without a commit


class Verify(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NONE = "none"


def check_name(name: str) -> str:
    """`name`, if an agent may be called so.

    Raises:
        ValueError: It may not; the message gives the rule and, where there is one, a name near it.
    """
    if _NAME.fullmatch(name) and not _AGENT_ID.fullmatch(name):
        return name
    near = slug(name)
    hint = f" {near!r} would do." if near and near != name else ""
    raise ValueError(f"a name is {_NAME_RULE}.{hint}")


def number_of(asked: str) -> int | None:
    """The number in an agent's id; none in what is a name."""
    return int(asked[1:]) if _AGENT_ID.fullmatch(asked) else None


def slug(text: str, limit: int = 32) -> str:
    """The beginning of `text` as words joined by '-', made of what a name may hold; '' where nothing is left."""
    words = re.findall(r"[a-z0-9]+", text[:400].lower())
    made = ""
    for word in words:
        longer = f"{made}-{word}" if made else word[:limit]
        if len(longer) > limit:
            break
        made = longer
    return f"{made}-x" if _AGENT_ID.fullmatch(made) else made


def check_text(text: str) -> str:
    """`text`, if it can reach a program byte for byte.

    Raises:
        ValueError: It is blank, or holds what no program can be fed.
    """
    if not text.strip():
        raise ValueError("must not be empty")
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("must be text that UTF-8 can carry; it holds half of a surrogate pair") from None
    if size > TASK_LIMIT:
        raise ValueError(f"must be at most {TASK_LIMIT // 1024 // 1024} MB; put the rest in a file and name it")
    return text


Text = Annotated[str, AfterValidator(check_text)]
Name = Annotated[str, AfterValidator(check_name)]
#: An amount of money that may be spent.
Dollars = Annotated[float, Field(gt=0, le=1_000_000)]
#: A limit of time: a week at most.
Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]


class Candidate(BaseModel):
    """In what one of several candidates differs from the spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    agent: str | None = None
    model: Text | None = None


#: More candidates for one task are a mistake.
_MOST_CANDIDATES = 10
_CANDIDATE = {"type": "object", "properties": {"agent": {"type": "string"}, "model": {"type": "string"}}}


def _list_candidates(told: object) -> object:
    """The candidates, where they are listed; where a number is told, so many that do not differ."""
    many = told if isinstance(told, int) else len(told) if isinstance(told, Sized) else 0
    if not 2 <= many <= _MOST_CANDIDATES:
        raise ValueError(f"must be a number from 2 to {_MOST_CANDIDATES}, or a list of as many {{agent, model}}")
    return (Candidate(),) * many if isinstance(told, int) else told


Candidates = Annotated[
    tuple[Candidate, ...],
    BeforeValidator(_list_candidates),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "array", "items": _CANDIDATE}]}),
]


class SpecParts(BaseModel):
    """What can be said of many agents at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    agent: str | None = Field(default=None, description="Agent program: claude, or one from the settings.")
    model: Text | None = Field(default=None, description="Model, as that program names it.")
    base: Text | None = Field(
        default=None, description="Commit, branch or agent (implies `after`) to start from. Default: your HEAD."
    )
    after: tuple[Text, ...] = Field(
        default=(), max_length=250, description="Ids or names of agents that must succeed first."
    )
    on_failed_dependency: Literal["skip", "run"] = "skip"
    exclusive: Text | None = Field(default=None, description="Key: of those that share it one runs at a time.")
    paths: tuple[Text, ...] = Field(default=(), max_length=250, description="Files it will change, for overlaps.")
    priority: int = Field(default=0, ge=-1000, le=1000, description="Higher starts first.")
    verify: Text | None = Field(
        default=None, description="Shell command run in its worktree at its end; unless it exits 0, the agent failed."
    )
    candidates: Candidates | None = Field(
        default=None,
        description="Try it so many times at once, or with each of these; they are name-1, …, and name means the best.",
    )
    judge: Text | None = Field(
        default=None, description="Shell command run in each candidate's worktree; the highest number it prints wins."
    )
    timeout_minutes: Minutes | None = Field(default=None, description="Ends the agent after so long.")
    silence_minutes: Minutes | None = Field(default=None, description="Ends it when it printed nothing for so long.")
    budget_usd: Dollars | None = Field(default=None, description="Most it may spend; then it pauses, its work kept.")
    retries: int | None = Field(
        default=None,
        ge=0,
        le=20,
        description="Tries after passing trouble: an API error, a killed claude, a command's exit 75.",
    )


class Spec(SpecParts):
    """Everything that was said about an agent at spawn."""

    task: Text = Field(description=TASK_DESCRIPTION)
    name: Name | None = Field(default=None, description=NAME_DESCRIPTION)


@dataclass(frozen=True, slots=True)
class Project:
    """A repository, known by its common git folder."""

    number: int
    common_dir: str


@dataclass(frozen=True, slots=True)
class Agent:
    """One task given to one coding-agent program: its record as it stands."""

    number: int
    project: int
    lead: str
    name: str
    spec: SpecParts  #: without the task, which may be large: the store tells it
    state: State
    merge: Merge
    base: str  #: the commit it starts from
    branch: str
    worktree: str  #: a path that is this agent's for ever
    checkout: str  #: the user's, where it was spawned; '' in a bare repository
    conversation: str  #: the id under which its program can resume
    environment: str  #: digest of the environment it was spawned in
    attempt: int  #: the number of its newest attempt
    prepared: bool  #: whether worktree and branch were made
    stop_asked: bool
    created: float  #: seconds since the epoch, as are the next three
    started: float | None
    ended: float | None
    removing: bool  #: whether its worktree is being taken away, or that was cut off
    removed: float | None  #: when its worktree was taken away
    last_event: str
    cost_usd: float | None
    account: str = ""  #: whose rate limit its model calls count against
    frozen: bool = False  #: paused, its program is stopped in midst
    ending: bool = False  #: paused, its program is to end, and the next attempt to go on; else that has ended
    not_before: float = 0  #: paused, until when; seconds since the epoch
    paused_why: str = ""
    retried: int = 0  #: how often it was tried again of what `retries` allows
    after: tuple[int, ...] = ()  #: numbers of those that must have ended before it starts
    best_of: tuple[tuple[int, ...], ...] = ()  #: of each of these, all of `after` if any, the best counts
    base_agents: tuple[int, ...] = ()  #: of the best of these its base is to be; none: that is a commit, or of `after`
    contest: int = 0  #: the number of the first candidate for its task; 0: there are no others
    contest_name: str = ""  #: what all of these are called together
    restored: bool = False  #: from the files of its attempt, after its record was damaged
    budget_usd: float | None = None  #: the most that it may spend
    reserved_usd: float = 0  #: of that, and of its lead's and repository's budgets, what it was given, spent or not
    wind_up: bool = False  #: it is asked to come to an end, since its budget does
    port_base: int = 0  #: the first of its block of ports; 0: it has none
    resolves: int | None = None  #: the number of another, whose conflict with a target it is to resolve
    theirs: str = ""  #: the commit of that, which it merges into what it starts from

    @property
    def id(self) -> str:
        return f"a{self.number}"

    @property
    def spent_usd(self) -> float:
        """What it has spent, as far as is known."""
        return self.cost_usd or 0

    @property
    def converses(self) -> bool:
        """Whether its program speaks with a model: that costs money, and can be gone on with."""
        return bool(self.account)

    @property
    def under_way(self) -> bool:
        """Whether there is something to carry on: it neither waits for a turn nor has ended."""
        return self.state in ACTIVE or self.frozen or self.ending

    @property
    def has_begun(self) -> bool:
        """Whether it has had a turn before."""
        return self.attempt > 1 or self.state is not State.QUEUED

    @property
    def whose(self) -> tuple[int, str]:
        """Its lead, and what that is known by: a project and a session in it."""
        return self.project, self.lead

    @property
    def discarded(self) -> bool:
        """Whether its work was taken away unmerged, as far as is recorded."""
        return self.removed is not None and self.merge not in (Merge.MERGED, Merge.NOTHING)

    @property
    def label(self) -> str:
        """Id and name, for a sentence."""
        return f"{self.id} ({self.name})"

    @property
    def slug(self) -> str:
        """Id and name, for a path or a ref."""
        return f"{self.id}-{self.name}"


@dataclass(frozen=True, slots=True)
class Pause:
    """Why and how an agent pauses: frozen in midst, or between two attempts."""

    why: str
    frozen: bool = False
    ending: bool = False  #: its program runs, and is to end
    not_before: float = 0  #: seconds since the epoch: it does not go on before
    counts: bool = False  #: as one of `retries`
    anew: bool = False  #: the next attempt begins with its task


@dataclass(frozen=True, slots=True)
class Budget:
    """What a repository's agents, or those of one lead in it, spend together."""

    project: int
    lead: str  #: '' for the whole repository
    limit_usd: float | None  #: none where nobody has set one
    spent_usd: float = 0


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an attempt, the same for all vendors; written once."""

    attempt: int
    state: State
    summary: str  #: the beginning of `output`, one line
    output: str  #: the program's last message, cut at `OUTPUT_LIMIT` characters
    commits: tuple[str, ...] = ()  #: newest first, "<short sha> <subject>"
    commit: str | None = None  #: the tip of its branch
    files_changed: int = 0
    insertions: int = 0
    deletions: int = 0
    verify: Verify = Verify.NONE
    verify_output: str = ""
    score: float | None = None  #: the number that its judge printed
    cost_usd: float | None = None
    usage: Usage | None = None
    duration_s: float = 0
    peak_memory_bytes: int | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()


#: Characters of a program's last message that a result keeps; the whole is in its log.
OUTPUT_LIMIT = 16_000


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """What an attempt's processes may take together, or those of all attempts; none: as much as there is."""

    memory: int | None = None  #: bytes
    cpus: float | None = None  #: at once
    cpu_s: float | None = None  #: seconds of CPU time in all
    processes: int | None = None  #: threads count as such
    file_size: int | None = None  #: bytes of each file that one writes, what it prints among them
    open_files: int | None = None  #: of each process


UNLIMITED = TreeLimits()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt's process ended, as its executor tells it.

    `lost` means that no end record was left: the machine or the shim vanished.
    """

    kind: Literal["exited", "signalled", "not_started", "timed_out", "limited", "lost"]
    code: int = 0  #: exit code, or the signal's number
    error: str = ""  #: why it could not be started, how it was lost, or which limit ended it
    duration_s: float = 0
    left: tuple[str, ...] = ()  #: processes of its tree that could not be ended
    peak_memory_bytes: int | None = None  #: the most that was seen; none where nobody has looked
    passing: bool = False  #: whether nothing of it ever ran, for no fault of its own
    asked: bool = False  #: whether it was asked to end

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


#: How a branch lands: as a merge commit, or as one commit that has all of its changes.
Strategy = Literal["merge", "squash"]
#: Whether a conflict is only told, or an agent is spawned to resolve it.
OnConflict = Literal["report", "agent"]


class LandingState(StrEnum):
    """Where a landing stands. What is being moved is on disk before the first file is touched."""

    QUEUED = "queued"  #: asked for
    MOVING = "moving"  #: merged and verified; the target is being moved
    DONE = "done"  #: its answer is recorded


@dataclass(frozen=True, slots=True)
class Landing:
    """One call of merge_worktree: branches on their way to a target."""

    number: int
    project: int
    lead: str
    agents: tuple[int, ...]
    target: str  #: a full ref name, refs/heads/main
    verify: str | None
    dry_run: bool
    environment: str
    state: LandingState
    created: float
    move: str | None = None  #: JSON of what is being moved, or was; none where nothing is
    answer: str | None = None  #: JSON of what was answered, once `DONE`
    checkout: str = ""  #: the user's, where it was asked for; '' in a bare repository
    strategy: Strategy = "merge"
    include_failed: bool = False  #: also branches of agents that did not succeed
    undoes: int | None = None  #: the number of the landing that it takes back
    on_conflict: OnConflict = "report"
