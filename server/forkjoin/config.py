"""The settings: `config.toml` in forkjoin's config folder, checked when the daemon starts.

A setting that is unknown or wrong is an error that names the file and the key: none is dropped in silence.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forkjoin.error import CallerError
from forkjoin.model import Name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Strict):
    max_running: Annotated[int, Field(ge=1, le=1000)] | None = None  #: none: from cores and free memory
    timeout_minutes: Annotated[float, Field(gt=0)] | None = None  #: of an agent whose spec names none
    verify_minutes: Annotated[float, Field(gt=0)] = 30  #: of one run of verify
    stop_grace_s: Annotated[float, Field(ge=0, le=600)] = 10  #: between TERM and KILL
    idle_minutes: Annotated[float, Field(gt=0)] = 10  #: until a daemon with nothing to do leaves


class Retention(_Strict):
    days: Annotated[int, Field(ge=0)] = 30  #: that what is merged stays, counted in days forkjoin ran; 0: for ever


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
    agents: dict[Name, AgentProgram] = {}

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


def read_settings(file: Path) -> Settings:
    """The settings in `file`; the defaults where there is none.

    Raises:
        CallerError: It is no TOML, or a setting in it is unknown or wrong.
    """
    try:
        return Settings.model_validate(tomllib.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        return Settings()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise CallerError(f"{file}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CallerError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
