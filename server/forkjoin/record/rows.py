"""Between the records' rows and the words of the model."""

import json
import sqlite3
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from forkjoin.config import Recipe
from forkjoin.event import Recorded
from forkjoin.model import Agent, Landing, Result, Spec, SpecParts

Row = dict[str, Any]

#: What is said of an agent that was restored.
RESTORED = "Its record was damaged, and was restored from the files of its attempt."
RESULT = TypeAdapter(Result)
_AGENT = TypeAdapter(Agent)
_LANDING = TypeAdapter(Landing)
JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


#: What is known of what an agent was asked to do, where nothing is.
_UNKNOWN = Spec(task="(unknown: the record was damaged)")


#: What a repository wants without a forkjoin.toml.
_NONE = Recipe()


def _columns_of(spec: Spec) -> dict[str, Any]:
    """A spec without its task, which stands in a table of its own."""
    told = spec.model_dump_json(exclude_defaults=True, exclude={"task", "name"})
    return {"spec": told, "priority": spec.priority, "budget_usd": spec.budget_usd}


def _read_spec(told: object) -> Spec:
    """A spec that was written down, without what this forkjoin does not know; all of it is unknown if it is wrong."""
    known = {name: part for name, part in JSON.validate_python(told).items() if name in Spec.model_fields}
    try:
        return Spec.model_validate(_UNKNOWN.model_dump() | known)
    except ValidationError:
        return _UNKNOWN


def _read_recipe(told: object) -> Recipe:
    """A recipe that was written down; none of it where this forkjoin knows better."""
    try:
        return Recipe.model_validate(told)
    except ValidationError:
        return _NONE


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


@dataclass(frozen=True, slots=True)
class NewAgent:
    """An agent that is about to be recorded."""

    project: int
    lead: str
    name: str
    derived: bool  #: whether we made the name, and may add a number to it
    spec: Spec
    base: str
    checkout: str
    conversation: str
    environment: str
    account: str = ""
    recipe: Recipe = _NONE
    after: tuple[int, ...] = ()  #: numbers of those that it comes after
    after_new: tuple[int, ...] = ()  #: as above, of those that are recorded with it: their places among these

    def columns(self) -> dict[str, Any]:
        return asdict(self) | _columns_of(self.spec) | {"recipe": write_recipe(self.recipe)}


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
    account: str = "claude"
    recipe: Annotated[Recipe, BeforeValidator(_read_recipe)] = _NONE
    port_base: int = 0
    spec: Annotated[Spec, BeforeValidator(_read_spec)] = _UNKNOWN


@dataclass(frozen=True, slots=True)
class Asked:
    """What an agent was asked for when its program was to end, in its attempt's asked.json; as in its record."""

    stop_asked: bool = False
    ending: bool = False
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

    def columns(self) -> dict[str, Any]:
        about = self.about.model_dump() | {"recipe": write_recipe(self.about.recipe)}
        return asdict(self) | asdict(self.asked) | about | _columns_of(self.about.spec)


@dataclass(frozen=True, slots=True)
class NewLanding:
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

    def columns(self) -> dict[str, Any]:
        return asdict(self) | {"agents": json.dumps(self.agents), "recipe": write_recipe(self.recipe)}


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    return dict(zip([column[0] for column in cursor.description], row, strict=True))


def agent(row: Row) -> Agent:
    return _AGENT.validate_python({**row, "spec": _spec(row["spec"]), "after": json.loads(row["after"])})


@lru_cache(maxsize=4096)
def _spec(text: str) -> SpecParts:
    """A spec, parsed once: the loop looks at all that wait again and again, and many are alike."""
    return SpecParts.model_validate_json(text)


def write_recipe(wanted: Recipe) -> str:
    return wanted.model_dump_json(exclude_defaults=True)


@lru_cache(maxsize=256)
def recipe(text: str) -> Recipe:
    """A recipe, parsed once: many are alike."""
    return Recipe.model_validate_json(text)


def recorded(row: Row) -> Recorded:
    return Recorded(row["number"], row["attempt"], row["at"], row["kind"], row["text"], row["offset"])


def landing(row: Row) -> Landing:
    return _LANDING.validate_python({**row, "agents": json.loads(row["agents"])})
