"""Workspaces: worktrees of agents and merges, with shared files, setup, commands and teardown.

All commands of a workspace have the same environment. Each command has its own handle, by which the next daemon finds
it after a crash. So no command runs twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from forkjoin.adapters.registry import ADAPTERS
from forkjoin.core.session import NO_RIGHTS
from forkjoin.core.settings import RepositorySettings
from forkjoin.git.worktrees.files_shared_from_checkout import COPY, share
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.process.environment import compose
from forkjoin.services import Services
from forkjoin.workspace.shell_command import CommandRun, run_command, run_handles

#: The number of characters of a teardown's output that a warning includes.
_OUTPUT_LIMIT = 400


class SetupOutcome(NamedTuple):
    """The result of `Workspace.make_ready`."""

    notes: list[str]  #: for each step, a sentence about its outcome
    failed: str = ""  #: why the worktree isn't ready; "" if it is


@dataclass(frozen=True, slots=True)
class Workspace:
    """An existing worktree of an agent or a merge, in which commands run."""

    services: Services
    handle: str  #: the beginning of the handles of its commands: a1-1 for an agent, t1 for a scratch worktree
    common_dir: str
    path: Path
    checkout: str  #: the user's checkout, the source of shared files; "" in a bare repository
    repository_settings: RepositorySettings
    port_base: int  #: the first of the workspace's ports; 0 if it has none
    environment: Mapping[str, str]  #: the environment of the lead
    variables: Mapping[str, str]  #: FORKJOIN_* variables that only this workspace has

    async def compose(
        self, added: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the environment of a command in the workspace, or of an agent's program.

        Args:
            added: Variables that the program gets from the user's settings and its adapter. Commands get none.
            variables: FORKJOIN_* variables that only the program gets.
        """
        place = await self._find_sharing_worktree()
        everywhere = {
            **self.services.home.variables,
            "FORKJOIN_TOKEN": NO_RIGHTS,
            "FORKJOIN_WORKTREE": str(self.path),
            "FORKJOIN_SLUG": _slug(self.services.home_name, self.handle),
            **({"FORKJOIN_PORT_BASE": str(self.port_base)} if self.port_base else {}),
        }
        own = {**everywhere, **self.variables, **(variables or {})}
        wanted = self.repository_settings.environment
        return compose(self.environment, added or {}, own, wanted=wanted, ignore=place.ignore_file if place else None)

    async def run(self, kind: str, command: str, minutes: float, *words: str, apart: bool = False) -> CommandRun:
        """Run a shell command in the worktree, or return how it ended if it has run.

        Args:
            kind: The name of the command in its handle, e.g. "setup".
            minutes: The time limit.
            words: The command's arguments: $1, $2 and so on.
            apart: Whether stderr is left out of the returned output.

        Raises:
            OSError: The machine lacks resources to start the command. The caller may try again later.
        """
        limits = self.services.settings.limits
        spec = AttemptSpec(
            handle=f"{self.handle}-{kind}",
            argv=("/bin/sh", "-c", command, "sh", *words),
            cwd=str(self.path),
            environment=await self.compose(),
            timeout_s=minutes * 60,
            stderr_to_stdout=not apart,
            log_bytes=limits.log_bytes,
            limits=limits.per_agent,
        )
        return await run_command(self.services.executor, spec)

    async def make_ready(self) -> SetupOutcome:
        """Share files with the user's checkout, then run setup."""
        wanted = self.repository_settings
        notes: list[str] = []
        steps: list[tuple[str, ...]] = [("setup", wanted.setup)] if wanted.setup else []
        if place := await self._find_sharing_worktree():
            copies, notes = await share(Path(self.checkout), place, wanted.share)
            steps = [("share", COPY, *copies), *steps] if copies else steps
        for kind, command, *words in steps:
            outcome, printed = await self.run(kind, command, wanted.setup_minutes, *words)
            notes.append(f"{kind}: {outcome} in {outcome.duration_s:.1f} s")
            if not outcome.ok:
                return SetupOutcome(notes, f"{kind} failed: {outcome}\n{printed}".strip())
        return SetupOutcome(notes)

    async def _find_sharing_worktree(self) -> RegisteredWorktree | None:
        """Return the worktree as git knows it, or `None` if it shares no files."""
        if not (self.repository_settings.share and self.checkout):
            return None
        return await find_registered_worktree(self.common_dir, self.path)

    async def tear_down(self) -> str:
        """Run the repository's teardown command, if any. Return why it failed, or ""."""
        wanted = self.repository_settings
        if wanted.teardown is None:
            return ""
        outcome, printed = await self.run("teardown", wanted.teardown, wanted.teardown_minutes)
        return "" if outcome.ok else f"{outcome}. {printed[-_OUTPUT_LIMIT:]}".strip()


def _slug(home: str, handle: str) -> str:
    """Return a unique prefix for names of containers and databases.

    It is the value of FORKJOIN_SLUG.

    Args:
        home: The home's name, which no other home has.
        handle: The handle of the workspace. All attempts of an agent get the same slug.
    """
    return f"fj-{home}-{handle.partition('-')[0]}"


def command_handles(handle: str, settings: RepositorySettings) -> list[str]:
    """Return the handles of the commands that must have ended before teardown runs."""
    return run_handles(handle, "verify", *(["share"] if settings.share else []), *(["setup"] if settings.setup else []))


def find_account(
    services: Services, environment: Mapping[str, str], agent: str | None, settings: RepositorySettings
) -> str:
    """Return an id of the vendor account that pays for an agent's model calls.

    Return "" if the program calls no model, or forkjoin does not know which.

    Args:
        environment: The environment of the lead.
        agent: The name of the agent program in the user's settings; `None` for the default.
        settings: The settings of the repository.
    """
    program = services.settings.program(agent)
    variables = compose(environment, program.environment, {}, wanted=settings.environment)
    return ADAPTERS[program.kind].account(variables)
