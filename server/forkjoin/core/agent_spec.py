"""What is said of an agent at spawn, and how agents are named: all of it enters from outside, as pydantic models.

An agent's id is its number with an `a` before it (`a1`), and a number is never used again.
"""

import re
from collections.abc import Sized
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

_AGENT_ID = re.compile(r"a[1-9]\d{0,17}")
_NAME_RULE = "1 to 64 letters, digits, '-' and '_', beginning with a letter or digit, and not like an id (a1)"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

#: A task is stored, hashed and fed whole; this is far beyond what any model reads.
TASK_LIMIT = 8 * 1024 * 1024


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
#: A command line; '' says that there is none, whatever the repository wants.
Command = Annotated[str, AfterValidator(lambda text: text and check_text(text))]
Name = Annotated[str, AfterValidator(check_name)]
#: An amount of money that may be spent.
Dollars = Annotated[float, Field(gt=0, le=1_000_000)]
#: A limit of time: a week at most.
Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]


class Strict(BaseModel):
    """What is said from outside: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Candidate(Strict):
    """In what one of several candidates differs from the spec."""

    agent: str | None = None
    model: Text | None = None


#: More candidates for one task are a mistake.
_MOST_CANDIDATES = 10


def _list_candidates(told: object) -> object:
    """The candidates, where they are listed; where a number is told, so many that do not differ."""
    many = told if isinstance(told, int) else len(told) if isinstance(told, Sized) else 0
    if not 2 <= many <= _MOST_CANDIDATES:
        raise ValueError(f"must be a number from 2 to {_MOST_CANDIDATES}, or a list of as many {{agent, model}}")
    return (Candidate(),) * many if isinstance(told, int) else told


Candidates = Annotated[
    tuple[Candidate, ...],
    BeforeValidator(_list_candidates),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "object"}}]}),
]


class Nesting(Strict):
    """What an agent may spawn itself."""

    depth: int = Field(default=1, ge=1, le=5)  #: 1: those that it spawns may spawn none
    agents: int = Field(ge=1, le=100)  #: in all, with those that these spawn
    budget_usd: Dollars | None = None  #: what all of these may spend


#: As Claude Code writes one: a tool, and in parentheses what of it.
_RULE = re.compile(r"([A-Z][A-Za-z]*|mcp__[\w*-]+)(\([^\x00-\x1f\x7f\ud800-\udfff]+\))?")
_RULE_LENGTH, _MOST_RULES = 500, 100


def _check_rule(rule: str) -> str:
    if len(rule) <= _RULE_LENGTH and _RULE.fullmatch(rule):
        return rule
    raise ValueError(
        f"{rule[:80]!r} is no rule: give a tool, and of it what is meant, such as WebFetch, Bash(npm test:*) or "
        f"Edit(/docs/**), in {_RULE_LENGTH} characters and one line"
    )


Rules = Annotated[tuple[Annotated[str, AfterValidator(_check_rule)], ...], Field(max_length=_MOST_RULES)]


class Permissions(Strict):
    """What a program may do without asking, and may not do."""

    allow: Rules | None = None  #: instead of what it may by default; but for edits it asks of all that is in neither
    deny: Rules = ()

    def over(self, others: "Permissions") -> "Permissions":
        """These, where they say something, else those others; what either denies is denied."""
        allow = others.allow if self.allow is None else self.allow
        return Permissions(allow=allow, deny=(*others.deny, *self.deny))


class SpecParts(Strict):
    """What can be said of many agents at once."""

    agent: str | None = None  #: agent program: claude, or one from the settings
    model: Text | None = None  #: as that program names it
    base: Text | None = None  #: commit, branch or agent to start from; an agent implies `after`
    after: tuple[Text, ...] = Field(default=(), max_length=250)  #: ids or names of agents that must succeed first
    on_failed_dependency: Literal["skip", "run"] = "skip"
    exclusive: Text | None = None  #: agents with the same key never run at the same time
    paths: tuple[Text, ...] = Field(default=(), max_length=250)  #: files that the agent will change
    priority: int = Field(default=0, ge=-1000, le=1000)  #: higher starts first
    verify: Command | None = None  #: shell command run in the worktree when the agent ends; "": none
    sparse: SkipJsonSchema[bool] = True  #: false: all files, though the checkout is sparse; in no tool's schema
    candidates: Candidates | None = None
    judge: Text | None = None  #: shell command run in each candidate's worktree; the highest number it prints wins
    timeout_minutes: Minutes | None = None
    silence_minutes: Minutes | None = None  #: most time without output
    budget_usd: Dollars | None = None
    nesting: Annotated[Nesting, WithJsonSchema({"type": "object"})] | None = None
    retries: int | None = Field(default=None, ge=0, le=20)  #: after errors that may pass
    permissions: Annotated[Permissions, WithJsonSchema({"type": "object"})] | None = None


class Spec(SpecParts):
    """Everything that was said about an agent at spawn."""

    task: Text
    name: Name | None = None
