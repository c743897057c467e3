"""Conversion between rows of the database and objects of the model."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from forkjoin.core.agent_spec import Spec, SpecParts
from forkjoin.core.merge_job import MergeJob, OnConflict, Strategy
from forkjoin.core.model import Agent, PauseKind, PauseReason
from forkjoin.core.request import Request, RequestKind
from forkjoin.core.result import Result
from forkjoin.core.settings import RepositorySettings

Row = dict[str, Any]
#: A function that returns the branch and the worktree's path for a new agent's number and name.
Place = Callable[[int, str], tuple[str, str]]

#: The warning in the result of an agent that was restored.
RESTORED = "Its record was damaged, and was restored from the files of its attempt."
RESULT = TypeAdapter(Result)
_AGENT = TypeAdapter(Agent)
_MERGE_JOB = TypeAdapter(MergeJob)
request = TypeAdapter(Request).validate_python

# SQLite has no column types for these classes. Their values are stored as JSON text.
sqlite3.register_adapter(RepositorySettings, lambda recipe: recipe.model_dump_json(exclude_defaults=True))
sqlite3.register_adapter(Result, lambda result: RESULT.dump_json(result).decode())
sqlite3.register_adapter(tuple, json.dumps)
sqlite3.register_adapter(dict, json.dumps)

#: The spec of an agent whose spec could not be read.
_UNKNOWN_SPEC = Spec(task="(unknown: the record was damaged)")
#: The configuration of a repository without a forkjoin.toml.
_DEFAULT_SETTINGS = RepositorySettings()


def _or(default: object) -> WrapValidator:
    """Return a validator that replaces invalid input with the default."""

    def validate(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            return default

    return WrapValidator(validate)


@dataclass(frozen=True, slots=True)
class Progress:
    """The positions in an attempt's output up to which it was read, and at which its last turn ended."""

    offset: int  #: bytes read
    turn_end: int | None  #: offset of the line that ended the last turn; None if no turn has ended


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost in one usage report.

    `part` identifies the report's part of a model call, so that a repeated report counts once.
    """

    part: str
    model: str
    cost_usd: float | None  #: None if no price is known for the model


class Others(NamedTuple):
    """Agents that a new agent refers to.

    Agents that are recorded in the same transaction have no numbers yet. An index in the list of new agents stands for
    each of these.
    """

    older: tuple[int, ...] = ()  #: numbers of agents that have a record
    new: tuple[int, ...] = ()  #: indexes in the list of new agents


_NO_AGENTS = Others()


@dataclass(frozen=True, slots=True)
class NewAgent:
    """An agent that is about to be recorded."""

    project: int
    lead: str
    name: str  #: for a candidate, the name of its group
    derived: bool  #: whether forkjoin derived the name, so that a number may be added
    spec: Spec
    base: str
    checkout: str
    conversation: str
    environment: str
    account: str = ""
    recipe: RepositorySettings = _DEFAULT_SETTINGS
    after: Others = _NO_AGENTS  #: this and the next two as in `Dependencies`
    best_of: tuple[Others, ...] = ()
    base_agents: Others = _NO_AGENTS
    candidate: int = 0  #: the agent's position in its group of candidates, from 1; 0 if the agent is no candidate
    candidates: int = 0  #: the size of the group; its candidates follow each other in the list of new agents
    resolves: int | None = None  #: `ConflictToResolve.agent`
    theirs: str = ""  #: `ConflictToResolve.commit`
    parent: int | None = None  #: this and the next as in `Lineage`
    above: tuple[str, ...] = ()


class About(BaseModel):
    """The facts about an agent in about.json, in the folder of its attempt.

    The fields are columns of the agent's record. An unreadable spec or recipe is replaced by a default.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    project: str  #: the repository's common git folder
    lead: str = ""
    branch: str
    base: str
    worktree: str
    checkout: str = ""
    conversation: str = ""
    environment: str = ""
    account: str = ""
    recipe: Annotated[RepositorySettings, _or(_DEFAULT_SETTINGS)] = _DEFAULT_SETTINGS
    port_base: int = 0
    resolves: int | None = None
    theirs: str = ""
    after: tuple[int, ...] = ()
    best_of: tuple[tuple[int, ...], ...] = ()
    base_agents: tuple[int, ...] = ()
    contest: int = 0
    contest_name: str = ""
    parent: int | None = None
    above: tuple[str, ...] = ()
    spec: Annotated[Spec, _or(_UNKNOWN_SPEC)] = _UNKNOWN_SPEC


@dataclass(frozen=True, slots=True)
class Asked:
    """The reason for which an agent's program was asked to end, in the attempt's asked.json.

    The fields are columns of the agent's record.
    """

    stop_asked: bool = False
    ending: bool = False
    pause_reason: PauseReason | None = None
    paused_why: str = ""
    not_before: float = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """An agent without a record, as the files of its newest attempt describe it."""

    number: int
    attempt: int
    about: About
    asked: Asked
    removed: bool  #: whether the agent's worktree and branch no longer exist


@dataclass(frozen=True, slots=True)
class NewMergeJob:
    """A merge job that is about to be recorded."""

    project: int
    lead: str
    agents: tuple[int, ...]
    target: str
    verify: str | None
    dry_run: bool
    environment: str
    checkout: str = ""
    recipe: RepositorySettings = _DEFAULT_SETTINGS
    strategy: Strategy = "merge"
    include_failed: bool = False
    undoes: int | None = None
    on_conflict: OnConflict = "report"


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A request that is about to be recorded."""

    kind: RequestKind
    text: str
    fallback: str  #: the answer if nobody answers in time
    seconds: float  #: time until the request expires


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    """Return a row as a dict, by column. This is a `sqlite3.Connection.row_factory`."""
    return dict(zip([column[0] for column in cursor.description], row, strict=True))


def agent(row: Row) -> Agent:
    """Return the agent whose columns `row` holds."""
    parsed = {name: _parse_json(row[name]) for name in ("after", "best_of", "base_agents", "above")}
    # The validator of each part picks its fields from all columns.
    parts = dict.fromkeys(("timing", "money", "lineage", "dependencies", "history"), row | parsed)
    renamed = {
        "worktree": row | {"path": row["worktree"]},
        "pause": {
            "reason": row["pause_reason"],
            "details": row["paused_why"],
            "kind": _pause_kind(frozen=row["frozen"], ending=row["ending"]),
            "not_before": row["not_before"],
        },
        "candidates": {"first": row["contest"], "name": row["contest_name"]},
        "conflict": {"agent": row["resolves"], "commit": row["theirs"]},
    }
    return _AGENT.validate_python({**row, "spec": _spec(row["spec"]), **parts, **renamed})


def _pause_kind(*, frozen: int, ending: int) -> PauseKind:
    return PauseKind.FROZEN if frozen else PauseKind.ENDING if ending else PauseKind.RESTING


def columns(agent: Agent) -> Row:
    """Return the columns of the agent's record that about.json repeats."""
    names = ("number", "attempt", "name", "lead", "conversation", "environment", "account")
    return {
        **{name: getattr(agent, name) for name in names},
        **asdict(agent.worktree),
        **asdict(agent.lineage),
        **asdict(agent.dependencies),
        "worktree": agent.worktree.path,
        "contest": agent.candidates.first,
        "contest_name": agent.candidates.name,
        "resolves": agent.conflict.agent,
        "theirs": agent.conflict.commit,
    }


@lru_cache(maxsize=4096)
def _parse_json(text: str) -> Any:
    """Parse JSON. The cache pays because most of these columns hold an empty list."""
    return json.loads(text)


@lru_cache(maxsize=4096)
def _spec(text: str) -> SpecParts:
    """Parse a spec.

    The cache pays because the reconciler reads all live agents in each pass, and many specs are equal.
    """
    return SpecParts.model_validate_json(text)


@lru_cache(maxsize=256)
def recipe(text: str) -> RepositorySettings:
    """Parse a recipe. The cache pays because many agents have the same one."""
    return RepositorySettings.model_validate_json(text)


def merge_job(row: Row) -> MergeJob:
    return _MERGE_JOB.validate_python({**row, "agents": json.loads(row["agents"])})
