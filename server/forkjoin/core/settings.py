"""The settings: `config.toml` in forkjoin's config folder, checked when the daemon starts, and a repository's own.

A setting that is unknown or wrong is an error that names the file and the key: none is dropped in silence.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, ValidationError

from forkjoin.core.agent_spec import Dollars, Minutes, Name, Permissions, Text
from forkjoin.core.error import CallerError
from forkjoin.core.model import Strategy, TreeLimits

#: Names of variables, or their beginnings, that come to an agent neither from its lead nor from its repository.
RESERVED_VARIABLES = ("CLAUDECODE", "CLAUDE_PROJECT_DIR", "CLAUDE_CODE_", "GIT_", "FORKJOIN_")

_PART = re.compile(r"[\w.@+~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: These put code into every program, git and forkjoin's own among them.
_LOADERS = ("LD_PRELOAD", "LD_AUDIT")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Bytes = Annotated[ByteSize, Field(ge=0, le=2**60)]
_Cpus = Annotated[float, Field(ge=0.01, le=10_000)]
_Processes = Annotated[int, Field(ge=0, le=4_000_000)]
_Kind = TypeVar("_Kind", bound=_Strict)


#: How long a request waits: claude gives up a call that has said nothing for half an hour.
RequestMinutes = Annotated[float, Field(gt=0, le=25)]


class Limits(_Strict):
    max_running: Annotated[int, Field(ge=1, le=1000)] | None = None  #: none: from cores and free memory
    timeout_minutes: Minutes | None = None  #: of an agent whose spec names none
    silence_minutes: Minutes | None = None  #: as above: without a byte printed
    log_megabytes: Annotated[int, Field(ge=2, le=1_000_000)] = 64  #: kept of what is printed, beginning and end
    verify_minutes: Minutes = 30  #: of one run of verify
    request_minutes: RequestMinutes = 10  #: that a request waits, before a permission is denied
    retries: Annotated[int, Field(ge=0, le=20)] = 2  #: of an agent whose spec names none: after passing trouble
    #: Before the first of these tries; twice as long before each next.
    rest_s: Annotated[float, Field(ge=0, le=3600)] = 5
    stop_grace_s: Annotated[float, Field(ge=0, le=600)] = 10  #: between TERM and KILL
    idle_minutes: Annotated[float, Field(gt=0)] = 10  #: until a daemon with nothing to do leaves
    #: None that does its work is near these two, whose lack makes a machine unusable; 0: no limit.
    memory_per_agent: _Bytes | None = None  #: none: half of what there is (`Settings.on`)
    processes_per_agent: _Processes = 2048  #: and threads; as many as podman gives a container
    cpus_per_agent: _Cpus | None = None  #: at once
    cpu_minutes_per_agent: Annotated[float, Field(gt=0, le=1e9)] | None = None
    file_size: _Bytes | None = None  #: of the largest file that an agent may write
    open_files: Annotated[int, Field(ge=16, le=2**30)] | None = None  #: of each of its processes
    free_memory: _Bytes | None = None  #: nothing starts that would leave less free; none: a twentieth, or 500 MB
    max_load: Annotated[float, Field(gt=0, le=100_000)] | None = None  #: nothing starts above; none: 4 for each core
    memory: _Bytes | None = None  #: this and the next two: of all agents together
    cpus: _Cpus | None = None
    processes: _Processes | None = None

    @property
    def log_bytes(self) -> int:
        return self.log_megabytes * 1024 * 1024

    @property
    def per_agent(self) -> TreeLimits:
        return TreeLimits(
            memory=self.memory_per_agent or None,
            cpus=self.cpus_per_agent,
            cpu_s=self.cpu_minutes_per_agent and self.cpu_minutes_per_agent * 60,
            processes=self.processes_per_agent or None,
            file_size=self.file_size or None,
            open_files=self.open_files,
        )

    @property
    def in_all(self) -> TreeLimits:
        return TreeLimits(memory=self.memory or None, cpus=self.cpus, processes=self.processes or None)


class Retention(_Strict):
    #: That what is merged stays, counted in days on which forkjoin ran; 0: for ever.
    days: Annotated[int, Field(ge=0, le=100_000)] = 30


class Merging(_Strict):
    strategy: Strategy = "merge"  #: of merges whose call names none
    protected: tuple[str, ...] = ()  #: branches, as fnmatch has them, into which a merge must be confirmed


class Money(_Strict):
    """Budgets, where the person has set none with `forkjoin budget`."""

    repository_usd: Dollars | None = None
    lead_usd: Dollars | None = None
    agent_usd: Dollars | None = None  #: of an agent whose spec names none
    #: What is reserved at a time for an agent that has no budget, in a repository or of a lead that has one.
    reserve_usd: Dollars = 1


class AgentProgram(_Strict):
    """One way to run an agent: an adapter, and what it is to start."""

    kind: Literal["claude", "command"]
    command: Annotated[list[str], Field(min_length=1)]
    environment: dict[str, str] = {}  #: added to what the agent's lead had
    skip_permissions: bool = False  #: claude: ask for nothing at all; the deny rules still hold
    model: str | None = None  #: where the spec names none


class Settings(_Strict):
    default_agent: str = "claude"
    limits: Limits = Limits()
    retention: Retention = Retention()
    merge: Merging = Merging()
    budget: Money = Money()
    permissions: Permissions = Permissions()  #: of agents whose spec gives none; what it denies is denied to all
    agents: dict[Name, AgentProgram] = {}

    def on(self, memory: int) -> "Settings":
        """These, where there are so many bytes of memory for all."""
        asked = self.limits.memory_per_agent
        half = self.limits.model_copy(update={"memory_per_agent": memory // 2 if asked is None else asked})
        return self.model_copy(update={"limits": half})

    def program(self, name: str | None) -> AgentProgram:
        """The agent program of that name; without one, the default.

        Raises:
            CallerError: There is none; the message lists those that are.
        """
        wanted = name or self.default_agent
        if found := self.programs().get(wanted):
            return found
        known = ", ".join(sorted(self.programs()))
        raise CallerError(
            f"No agent program {wanted[:80]!r}. There are: {known}. More go into config.toml ([agents.x])."
        )

    def programs(self) -> dict[str, AgentProgram]:
        return {"claude": AgentProgram(kind="claude", command=["claude"]), **self.agents}


def _check_shared(path: str) -> str:
    """`path`, without a slash at its end, if it can only lead to what is within a checkout."""
    parts = path.removesuffix("/").split("/")
    if all(_PART.fullmatch(part) and part not in (".", "..") and part.lower() != ".git" for part in parts):
        return "/".join(parts)
    raise ValueError(
        "must be a path within the checkout, such as packages/web/node_modules, of letters, digits, ._-@+~"
    )


def _check_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("a variable's name is letters, digits and '_', and does not begin with a digit")
    if name.startswith(RESERVED_VARIABLES) or name in _LOADERS:
        raise ValueError("can't be set here: it is for forkjoin, git or the agent's program to say")
    return name


def _check_value(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


class Recipe(_Strict):
    """What a repository itself wants, in its forkjoin.toml; recorded with each agent and landing that it is for."""

    verify: Text | None = None  #: of agents and merges whose call names none
    setup: Text | None = None  #: run in a new worktree, before the agent's program
    setup_minutes: Minutes = 15
    teardown: Text | None = None  #: run in a worktree that is about to go
    teardown_minutes: Minutes = 5
    #: What of the checkout, and ignored there, a worktree is to have: as a symlink to it, or as a copy.
    share: dict[Annotated[str, AfterValidator(_check_shared)], Literal["link", "copy"]] = {}
    #: How many, from $FORKJOIN_PORT_BASE on; none: ten, as long as there are any.
    ports: Annotated[int, Field(ge=1, le=1000)] | None = None
    environment: dict[
        Annotated[str, AfterValidator(_check_variable)], Annotated[str, AfterValidator(_check_value)]
    ] = {}

    def lines(self) -> list[str]:
        """All that it says, a line each, as a person reads it."""
        said = self.model_dump(exclude_defaults=True)
        tables = {name: said.pop(name) for name in ("share", "environment") if name in said}
        return [
            *(f"{key} = {value}" for key, value in said.items()),
            *(f"{table}: {key} = {value}" for table, rows in tables.items() for key, value in rows.items()),
        ]


def read_settings(file: Path) -> Settings:
    """The settings in `file`; the defaults where there is none.

    Raises:
        CallerError: It is no TOML, or a setting in it is unknown or wrong.
    """
    try:
        return check_settings(Settings, file, file.read_bytes())
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise CallerError(f"{file}: {error}") from error


def check_settings(kind: type[_Kind], file: Path, content: bytes) -> _Kind:
    """The settings in the content of `file`.

    Raises:
        CallerError: It is no TOML, or a setting in it is unknown or wrong.
    """
    try:
        return kind.model_validate(tomllib.loads(content.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallerError(f"{file}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CallerError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
