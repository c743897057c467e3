"""The settings of the user (`config.toml`) and of a repository (`forkjoin.toml`).

An unknown or invalid setting is an error that names the file and the key. No setting is silently ignored.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, ValidationError

from forkjoin.core.agent_spec import Dollars, Minutes, Name, Permissions, Text
from forkjoin.core.error import CallerError
from forkjoin.core.merge_job import Strategy
from forkjoin.core.tree_limits import TreeLimits

#: Prefixes of variables that an agent gets neither from its lead's environment nor from its repository.
RESERVED_VARIABLES = ("CLAUDECODE", "CLAUDE_PROJECT_DIR", "CLAUDE_CODE_", "GIT_", "FORKJOIN_")

_PART = re.compile(r"[\w.@+~-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables that inject code into every program, including git and forkjoin.
_LOADERS = ("LD_PRELOAD", "LD_AUDIT")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Bytes = Annotated[ByteSize, Field(ge=0, le=2**60)]
_Cpus = Annotated[float, Field(ge=0.01, le=10_000)]
_Processes = Annotated[int, Field(ge=0, le=4_000_000)]
_Kind = TypeVar("_Kind", bound=_Strict)


#: Minutes that a request waits. The maximum is less than the 30 minutes after which claude aborts a silent call.
RequestMinutes = Annotated[float, Field(gt=0, le=25)]


class Limits(_Strict):
    """Limits for agents: times, retries, memory and other resources."""

    #: How many agents run at the same time at most. None: derived from the number of cores and free memory.
    max_running: Annotated[int, Field(ge=1, le=1000)] | None = None
    timeout_minutes: Minutes | None = None  #: the time limit of an agent whose spec has none
    silence_minutes: Minutes | None = None  #: the limit of time without output, if the spec has none
    #: The size of an attempt's log. A log that is too long loses its middle.
    log_megabytes: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    verify_minutes: Minutes = 30  #: time limit of one run of verify
    request_minutes: RequestMinutes = 10  #: after this time a request counts as unanswered, or as denied
    retries: Annotated[int, Field(ge=0, le=20)] = 2  #: after transient errors, if the spec has no number
    #: Seconds before the first retry. Each further retry waits twice as long.
    rest_s: Annotated[float, Field(ge=0, le=3600)] = 5
    stop_grace_s: Annotated[float, Field(ge=0, le=600)] = 10  #: the time between SIGTERM and SIGKILL
    idle_minutes: Annotated[float, Field(gt=0)] = 10  #: a daemon without work exits after this time
    #: The next two limits protect the machine and are far above what an agent needs. 0: no limit.
    memory_per_agent: _Bytes | None = None  #: None: half of the machine's memory (`Settings.on`)
    processes_per_agent: _Processes = 2048  #: threads included; the default is podman's for a container
    cpus_per_agent: _Cpus | None = None  #: CPUs used at the same time
    cpu_minutes_per_agent: Annotated[float, Field(gt=0, le=1e9)] | None = None
    file_size: _Bytes | None = None  #: size of the largest file that an agent may write
    open_files: Annotated[int, Field(ge=16, le=2**30)] | None = None  #: open files of each process of an agent
    #: An agent that would leave less free memory does not start. None: a twentieth of the memory, or 500 MB if more.
    free_memory: _Bytes | None = None
    #: No agent starts while the load average is above this. None: 4 for each core.
    max_load: Annotated[float, Field(gt=0, le=100_000)] | None = None
    memory: _Bytes | None = None  #: `memory`, `cpus` and `processes` limit all agents together
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


class RetentionSettings(_Strict):
    """The time that records and worktrees are kept."""

    #: Days until a merged agent is removed. Only days on which forkjoin ran count. 0: never.
    days: Annotated[int, Field(ge=0, le=100_000)] = 30


class Merging(_Strict):
    """Defaults for merges, and the protected branches."""

    strategy: Strategy = "merge"  #: the strategy of a merge whose call names none
    protected: tuple[str, ...] = ()  #: fnmatch patterns of branches; merges into them must be confirmed


class BudgetDefaults(_Strict):
    """Default budgets, which `forkjoin budget` overrides."""

    repository_usd: Dollars | None = None
    lead_usd: Dollars | None = None
    agent_usd: Dollars | None = None  #: the budget of an agent whose spec has none
    #: The step in which money is reserved for an agent without a budget, if its lead or repository has a budget.
    reserve_usd: Dollars = 1


class AgentProgram(_Strict):
    """A program that runs agents: the adapter and the command to start."""

    kind: Literal["claude", "command"]
    command: Annotated[list[str], Field(min_length=1)]
    environment: dict[str, str] = {}  #: variables that are added to the lead's environment
    skip_permissions: bool = False  #: whether claude asks for no permissions; deny rules still apply
    model: str | None = None  #: the model of an agent whose spec names none


class Settings(_Strict):
    """The user's settings, from config.toml."""

    default_agent: str = "claude"
    limits: Limits = Limits()
    retention: RetentionSettings = RetentionSettings()
    merge: Merging = Merging()
    budget: BudgetDefaults = BudgetDefaults()
    permissions: Permissions = Permissions()  #: for agents whose spec has none; the deny rules here apply to all agents
    agents: dict[Name, AgentProgram] = {}

    def on(self, memory: int) -> "Settings":
        """Return the settings with the default `memory_per_agent` for a machine.

        Args:
            memory: The machine's memory in bytes.
        """
        asked = self.limits.memory_per_agent
        half = self.limits.model_copy(update={"memory_per_agent": memory // 2 if asked is None else asked})
        return self.model_copy(update={"limits": half})

    def program(self, name: str | None) -> AgentProgram:
        """Return the agent program with this name, or the default if the name is None.

        Raises:
            CallerError: There is no such program. The message lists the known ones.
        """
        wanted = name or self.default_agent
        if found := self.programs().get(wanted):
            return found
        known = ", ".join(sorted(self.programs()))
        raise CallerError(
            f"No agent program {wanted[:80]!r}. Known programs: {known}. Define more in config.toml ([agents.NAME])."
        )

    def programs(self) -> dict[str, AgentProgram]:
        return {"claude": AgentProgram(kind="claude", command=["claude"]), **self.agents}


def _check_shared(path: str) -> str:
    """Return a path without its final slash.

    Raises:
        ValueError: The path may lead out of the checkout, or into .git.
    """
    parts = path.removesuffix("/").split("/")
    if all(_PART.fullmatch(part) and part not in (".", "..") and part.lower() != ".git" for part in parts):
        return "/".join(parts)
    raise ValueError(
        "must be a path inside the checkout, e.g. packages/web/node_modules. Allowed are letters, digits and ._-@+~"
    )


def _check_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("a variable's name must consist of letters, digits and '_', and not begin with a digit")
    if name.startswith(RESERVED_VARIABLES) or name in _LOADERS:
        raise ValueError("can't be set here: the variable is reserved for forkjoin, git or the agent's program")
    return name


def _check_value(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    return text


class RepositorySettings(_Strict):
    """The settings in a repository's forkjoin.toml, which are recorded with each agent and each merge job."""

    verify: Text | None = None  #: the command for agents and merges whose call has none
    setup: Text | None = None  #: the command that runs in a new worktree before the agent's program
    setup_minutes: Minutes = 15
    teardown: Text | None = None  #: the command that runs in a worktree before its removal
    teardown_minutes: Minutes = 5
    #: Ignored files and folders of the checkout that each worktree gets, as a symlink or as a copy.
    share: dict[Annotated[str, AfterValidator(_check_shared)], Literal["link", "copy"]] = {}
    #: How many ports an agent gets, from $FORKJOIN_PORT_BASE on. None: ten, while ports are available.
    ports: Annotated[int, Field(ge=1, le=1000)] | None = None
    environment: dict[
        Annotated[str, AfterValidator(_check_variable)], Annotated[str, AfterValidator(_check_value)]
    ] = {}

    def lines(self) -> list[str]:
        """Return the settings that differ from the defaults, one line each, for people."""
        said = self.model_dump(exclude_defaults=True)
        tables = {name: said.pop(name) for name in ("share", "environment") if name in said}
        return [
            *(f"{key} = {value}" for key, value in said.items()),
            *(f"{table}: {key} = {value}" for table, rows in tables.items() for key, value in rows.items()),
        ]


def read_settings(file: Path) -> Settings:
    """Return the user's settings in a file, or the defaults if there is no file.

    Raises:
        CallerError: The file can't be read, is not TOML, or has an unknown or invalid setting.
    """
    try:
        return check_settings(Settings, file, file.read_bytes())
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise CallerError(f"{file}: {error}") from error


def check_settings(kind: type[_Kind], file: Path, content: bytes) -> _Kind:
    """Return the settings in the content of a file.

    Args:
        file: Only named in errors.

    Raises:
        CallerError: The content is not TOML, or has an unknown or invalid setting.
    """
    try:
        return kind.model_validate(tomllib.loads(content.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CallerError(f"{file}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CallerError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
