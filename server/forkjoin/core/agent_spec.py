"""The spec of an agent, as the caller gives it at spawn, and the rules for agents' names.

An agent's id is the letter `a` and its number (`a1`). Numbers are never reused.
"""

import re
from collections.abc import Sized
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

_AGENT_ID = re.compile(r"a[1-9]\d{0,17}")
_NAME_RULE = "1 to 64 letters, digits, '-' and '_', beginning with a letter or digit, and not like an id (a1)"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

#: Bytes of a task, far beyond what any model reads. Tasks are held in memory as a whole.
TASK_LIMIT = 8 * 1024 * 1024


def check_name(name: str) -> str:
    """Return `name` if it is valid for an agent.

    Raises:
        ValueError: The name is invalid. The message gives the rule and, if possible, a similar valid name.
    """
    if _NAME.fullmatch(name) and not _AGENT_ID.fullmatch(name):
        return name
    similar = slug(name)
    hint = f" {similar!r} would be valid." if similar and similar != name else ""
    raise ValueError(f"a name is {_NAME_RULE}.{hint}")


def number_of(reference: str) -> int | None:
    """Return the number in an agent's id, or `None` for a name."""
    return int(reference[1:]) if _AGENT_ID.fullmatch(reference) else None


def slug(text: str, limit: int = 32) -> str:
    """Return the first words of `text` as a valid name, joined by `-`.

    The name is empty if `text` has no ASCII letters or digits.
    """
    words = re.findall(r"[a-z0-9]+", text[:400].lower())
    name = ""
    for word in words:
        longer = f"{name}-{word}" if name else word[:limit]
        if len(longer) > limit:
            break
        name = longer
    return f"{name}-x" if _AGENT_ID.fullmatch(name) else name


def check_text(text: str) -> str:
    """Return `text` if it can be passed to a program unchanged.

    Raises:
        ValueError: The text is blank or too long, contains NUL, or can't be encoded as UTF-8.
    """
    if not text.strip():
        raise ValueError("must not be empty")
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode text; it contains one half of a surrogate pair") from None
    if size > TASK_LIMIT:
        raise ValueError(
            f"must be at most {TASK_LIMIT // 1024 // 1024} MB; put the rest in a file and name the file in the task"
        )
    return text


Text = Annotated[str, AfterValidator(check_text)]
#: A shell command. An empty one means no command, even if the repository configuration has one.
Command = Annotated[str, AfterValidator(lambda text: text and check_text(text))]
Name = Annotated[str, AfterValidator(check_name)]
#: US dollars that may be spent.
Dollars = Annotated[float, Field(gt=0, le=1_000_000)]
#: A time limit, one week at most.
Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]


class Strict(BaseModel):
    """A base class for input from outside. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Candidate(Strict):
    """The fields in which one of several candidates differs from the spec."""

    agent: str | None = None
    model: Text | None = None


#: Maximum number of candidates for one task. A higher number is likely a mistake.
_MOST_CANDIDATES = 10


def _list_candidates(given: object) -> object:
    """Return equal candidates if `given` is their number, else `given` itself.

    Raises:
        ValueError: The number of candidates is out of range.
    """
    count = given if isinstance(given, int) else len(given) if isinstance(given, Sized) else 0
    if not 2 <= count <= _MOST_CANDIDATES:
        raise ValueError(f"must be a number from 2 to {_MOST_CANDIDATES}, or a list of that many {{agent, model}}")
    return (Candidate(),) * count if isinstance(given, int) else given


Candidates = Annotated[
    tuple[Candidate, ...],
    BeforeValidator(_list_candidates),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "object"}}]}),
]


class Nesting(Strict):
    """The limits for agents that an agent spawns itself."""

    depth: int = Field(default=1, ge=1, le=5)  #: 1 means that the spawned agents may spawn none themselves
    agents: int = Field(ge=1, le=100)  #: how many agents, including those that spawned agents spawn
    budget_usd: Dollars | None = None  #: what all these agents together may spend


#: The form of Claude Code's permission rules: a tool, and optionally a specifier in parentheses.
_RULE = re.compile(r"([A-Z][A-Za-z]*|mcp__[\w*-]+)(\([^\x00-\x1f\x7f\ud800-\udfff]+\))?")
_RULE_LENGTH, _MOST_RULES = 500, 100


def _check_rule(rule: str) -> str:
    if len(rule) <= _RULE_LENGTH and _RULE.fullmatch(rule):
        return rule
    raise ValueError(
        f"{rule[:80]!r} is not a permission rule. Give a tool, optionally with a specifier, such as WebFetch, "
        f"Bash(npm test:*) or Edit(/docs/**), on one line of at most {_RULE_LENGTH} characters"
    )


Rules = Annotated[tuple[Annotated[str, AfterValidator(_check_rule)], ...], Field(max_length=_MOST_RULES)]


class Permissions(Strict):
    """Rules for what a program may do without asking, and what it may not do."""

    allow: Rules | None = None  #: replaces the default; the program asks before it uses any tool but these and edits
    deny: Rules = ()

    def over(self, others: "Permissions") -> "Permissions":
        """Return these permissions with `others` as defaults.

        The deny rules of both apply.
        """
        allow = others.allow if self.allow is None else self.allow
        return Permissions(allow=allow, deny=(*others.deny, *self.deny))


class SpecParts(Strict):
    """The fields of a spec that several agents can share."""

    agent: str | None = None  #: agent program: claude, or one from the settings
    model: Text | None = None  #: the model's name for the agent program
    base: Text | None = None  #: the commit, branch or agent to start from; an agent is also added to `after`
    after: tuple[Text, ...] = Field(default=(), max_length=250)  #: ids or names of agents that must succeed first
    on_failed_dependency: Literal["skip", "run"] = "skip"
    exclusive: Text | None = None  #: agents with the same key never run at the same time
    paths: tuple[Text, ...] = Field(default=(), max_length=250)  #: files that the agent will change
    priority: int = Field(default=0, ge=-1000, le=1000)  #: higher starts first
    verify: Command | None = None  #: the shell command to run in the worktree when the agent ends
    sparse: SkipJsonSchema[bool] = True  #: false: all files, though the checkout is sparse; in no tool's schema
    candidates: Candidates | None = None
    judge: Text | None = None  #: a shell command; the candidate in whose worktree it prints the highest number wins
    timeout_minutes: Minutes | None = None
    silence_minutes: Minutes | None = None  #: the agent is ended after this time without output
    budget_usd: Dollars | None = None
    nesting: Annotated[Nesting, WithJsonSchema({"type": "object"})] | None = None
    retries: int | None = Field(default=None, ge=0, le=20)  #: how often to retry after transient errors
    permissions: Annotated[Permissions, WithJsonSchema({"type": "object"})] | None = None


class Spec(SpecParts):
    """Everything that the caller gives about an agent at spawn."""

    task: Text
    name: Name | None = None
