"""Between the records' rows and the words of the model."""

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
from forkjoin.core.settings import Recipe

Row = dict[str, Any]
#: What gives a new agent's branch and worktree, by its number and name.
Place = Callable[[int, str], tuple[str, str]]

#: What is said of an agent that was restored.
RESTORED = "Its record was damaged, and was restored from the files of its attempt."
RESULT = TypeAdapter(Result)
_AGENT = TypeAdapter(Agent)
_MERGE_JOB = TypeAdapter(MergeJob)
request = TypeAdapter(Request).validate_python

# How in a query's values is written what SQLite has no type for.
sqlite3.register_adapter(Recipe, lambda recipe: recipe.model_dump_json(exclude_defaults=True))
sqlite3.register_adapter(Result, lambda result: RESULT.dump_json(result).decode())
sqlite3.register_adapter(tuple, json.dumps)
sqlite3.register_adapter(dict, json.dumps)

#: What is known of an agent's task where nothing is, and what a repository wants without a forkjoin.toml.
_UNKNOWN, _NONE = Spec(task="(unknown: the record was damaged)"), Recipe()


def _or(unknown: object) -> WrapValidator:
    """Takes what makes no sense for this."""

    def read(told: object, known: ValidatorFunctionWrapHandler) -> object:
        try:
            return known(told)
        except ValidationError:
            return unknown

    return WrapValidator(read)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt's output was read, and where the line stands that ended its last turn."""

    offset: int
    turn_end: int | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of a model call cost; none where no price is known."""

    part: str
    model: str
    cost_usd: float | None


class Others(NamedTuple):
    """Agents that a new one has to do with."""

    older: tuple[int, ...] = ()  #: numbers
    new: tuple[int, ...] = ()  #: of those that are recorded with it: their places among these


_NOBODY = Others()


@dataclass(frozen=True, slots=True)
class NewAgent:
    """An agent that is about to be recorded."""

    project: int
    lead: str
    name: str  #: of a candidate, what all of them are called together
    derived: bool  #: whether we made the name, and may add a number to it
    spec: Spec
    base: str
    checkout: str
    conversation: str
    environment: str
    account: str = ""
    recipe: Recipe = _NONE
    after: Others = _NOBODY  #: whom it comes after
    best_of: tuple[Others, ...] = ()  #: as in its record, as is the next
    base_agents: Others = _NOBODY
    candidate: int = 0  #: which of those for its task it is, from 1, one behind the other; 0: there are no others
    candidates: int = 0  #: how many there are
    resolves: int | None = None  #: as in its record, as is the next
    theirs: str = ""
    parent: int | None = None  #: as in its record, as is the next
    above: tuple[str, ...] = ()


class About(BaseModel):
    """What the folder of an attempt tells of its agent, in about.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    project: str  #: its common git folder
    lead: str = ""
    branch: str
    base: str
    worktree: str
    checkout: str = ""
    conversation: str = ""
    environment: str = ""
    account: str = ""
    recipe: Annotated[Recipe, _or(_NONE)] = _NONE
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
    spec: Annotated[Spec, _or(_UNKNOWN)] = _UNKNOWN


@dataclass(frozen=True, slots=True)
class Asked:
    """What an agent was asked for when its program was to end, in its attempt's asked.json; as in its record."""

    stop_asked: bool = False
    ending: bool = False
    pause_reason: PauseReason | None = None
    paused_why: str = ""
    not_before: float = 0


@dataclass(frozen=True, slots=True)
class Restored:
    """An agent of which only the files of its attempts tell; `removed` where its worktree and branch are gone."""

    number: int
    attempt: int
    about: About
    asked: Asked
    removed: bool


@dataclass(frozen=True, slots=True)
class NewMergeJob:
    """A merge that was asked for and is about to be recorded."""

    project: int
    lead: str
    agents: tuple[int, ...]
    target: str
    verify: str | None
    dry_run: bool
    environment: str
    checkout: str = ""
    recipe: Recipe = _NONE
    strategy: Strategy = "merge"
    include_failed: bool = False
    undoes: int | None = None
    on_conflict: OnConflict = "report"


@dataclass(frozen=True, slots=True)
class NewRequest:
    """What an agent asks, and for how long it waits."""

    kind: RequestKind
    text: str
    fallback: str
    seconds: float


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    return dict(zip([column[0] for column in cursor.description], row, strict=True))


def agent(row: Row) -> Agent:
    """Return the agent whose columns `row` holds; each part of the record takes its own from them."""
    parsed = {name: _numbers(row[name]) for name in ("after", "best_of", "base_agents", "above")}
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
def _numbers(text: str) -> Any:
    """A list of numbers, parsed once: most are empty."""
    return json.loads(text)


@lru_cache(maxsize=4096)
def _spec(text: str) -> SpecParts:
    """A spec, parsed once: the reconciler looks at all that wait again and again, and many are alike."""
    return SpecParts.model_validate_json(text)


@lru_cache(maxsize=256)
def recipe(text: str) -> Recipe:
    """A recipe, parsed once: many are alike."""
    return Recipe.model_validate_json(text)


def merge_job(row: Row) -> MergeJob:
    return _MERGE_JOB.validate_python({**row, "agents": json.loads(row["agents"])})
