"""Between the records' rows and the words of the model."""

import json
import sqlite3
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from forkjoin.event import Recorded
from forkjoin.model import Agent, Landing, Result, Spec, SpecParts

Row = dict[str, Any]

#: What is said of an agent that was restored.
RESTORED = "Its record was damaged, and was restored from the files of its attempt."
RESULT = TypeAdapter(Result)
_AGENT = TypeAdapter(Agent)
_LANDING = TypeAdapter(Landing)
JSON: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt's output was read, and where the line stands that ended its last turn."""

    offset: int
    turn_end: int | None


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

    def columns(self) -> dict[str, Any]:
        columns = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "derived"}
        spec = self.spec.model_dump_json(exclude_defaults=True, exclude={"task", "name"})
        return columns | {"spec": spec, "priority": self.spec.priority}


@dataclass(frozen=True, slots=True)
class Restored:
    """An agent of which only the files of its attempts tell; `removed` where its worktree and branch are gone."""

    number: int
    attempt: int
    project: str  #: its common git folder
    lead: str
    name: str
    spec: SpecParts
    task: str
    base: str
    branch: str
    worktree: str
    checkout: str
    conversation: str
    environment: str
    stop_asked: bool
    removed: bool

    def columns(self) -> dict[str, Any]:
        """What is recorded as it is."""
        kept = ("number", "attempt", "lead", "base", "branch", "worktree", "checkout", "conversation", "environment")
        columns = {name: getattr(self, name) for name in (*kept, "stop_asked")}
        return columns | {"spec": self.spec.model_dump_json(exclude_defaults=True), "priority": self.spec.priority}


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

    def columns(self) -> dict[str, Any]:
        return asdict(self) | {"agents": json.dumps(self.agents)}


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    return dict(zip([column[0] for column in cursor.description], row, strict=True))


def agent(row: Row) -> Agent:
    return _AGENT.validate_python({**row, "spec": _spec(row["spec"])})


@lru_cache(maxsize=4096)
def _spec(text: str) -> SpecParts:
    """A spec, parsed once: the loop looks at all that wait again and again, and many are alike."""
    return SpecParts.model_validate_json(text)


def recorded(row: Row) -> Recorded:
    return Recorded(row["number"], row["attempt"], row["at"], row["kind"], row["text"], row["offset"])


def landing(row: Row) -> Landing:
    return _LANDING.validate_python({**row, "agents": json.loads(row["agents"])})
