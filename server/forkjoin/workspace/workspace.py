"""Workspaces: worktrees of agents and merges, with shared files, setup, commands and teardown.

All commands of a workspace have the same environment. Each command has its own handle, so that a daemon that takes over
continues a command and runs none twice.
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
from forkjoin.process.environment import compose
from forkjoin.services import Services
from forkjoin.workspace.shell_command import CommandRun, Shell, run_handles

#: The number of characters of a teardown's output that a warning includes.
_OUTPUT_LIMIT = 400


class SetupOutcome(NamedTuple):
    """The outcome of making a worktree ready."""

    notes: list[str]  #: a sentence about each step
    failed: str = ""  #: why the worktree isn't ready


@dataclass(frozen=True, slots=True)
class Workspace:
    """An existing worktree, with everything that its commands need."""

    services: Services
    handle: str  #: prefix of the handles of commands: a1-1 for an agent, t1 for a scratch worktree
    common_dir: str
    path: Path
    checkout: str  #: the user's checkout, the source of shared files; "" in a bare repository
    repository_settings: RepositorySettings
    port_base: int  #: the first of its ports; 0: it has none
    environment: Mapping[str, str]  #: the environment of the lead
    ours: Mapping[str, str]  #: FORKJOIN_* variables of this workspace, in addition to the common ones

    async def compose(
        self, settings: Mapping[str, str] | None = None, ours: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Return the environment of the workspace's commands, or of a program in it.

        Args:
            settings: Variables that the settings add for the program.
            ours: More FORKJOIN_* variables for the program.
        """
        place = await self._place()
        everywhere = {
            **self.services.home.variables,
            "FORKJOIN_TOKEN": NO_RIGHTS,
            "FORKJOIN_WORKTREE": str(self.path),
            "FORKJOIN_SLUG": _slug(self.services.home_name, self.handle),
            **({"FORKJOIN_PORT_BASE": str(self.port_base)} if self.port_base else {}),
        }
        ours = {**everywhere, **self.ours, **(ours or {})}
        ignore = place.ignore_file if place else None
        return compose(
            self.environment, settings or {}, ours, wanted=self.repository_settings.environment, ignore=ignore
        )

    async def run(self, kind: str, command: str, minutes: float, *words: str, apart: bool = False) -> CommandRun:
        """Run a shell command in the worktree, once for each kind.

        If a command of this kind has run already, return its outcome.

        Args:
            kind: For example "setup". It becomes part of the handle.
            minutes: The time limit.
            words: The command's arguments: $1, $2 and so on.
            apart: Whether to keep stderr apart from stdout.
        """
        made, limits = await self.compose(), self.services.settings.limits
        shell = Shell(self.services.executor, self.handle, str(self.path), made, limits.log_bytes, limits.per_agent)
        return await shell.run(kind, command, minutes, *words, apart=apart)

    async def make_ready(self) -> SetupOutcome:
        """Share files with the user's checkout, then run setup."""
        notes: list[str] = []
        steps: list[tuple[str, ...]] = (
            [("setup", self.repository_settings.setup)] if self.repository_settings.setup else []
        )
        if place := await self._place():
            copies, notes = await share(Path(self.checkout), place, self.repository_settings.share)
            steps = [("share", COPY, *copies), *steps] if copies else steps
        for kind, command, *words in steps:
            outcome, printed = await self.run(kind, command, self.repository_settings.setup_minutes, *words)
            notes.append(f"{kind}: {outcome} in {outcome.duration_s:.1f} s")
            if not outcome.ok:
                return SetupOutcome(notes, f"{kind} failed: {outcome}\n{printed}".strip())
        return SetupOutcome(notes)

    async def _place(self) -> RegisteredWorktree | None:
        """Return the worktree's git data, or `None` if no files are shared with it."""
        return (
            await find_registered_worktree(self.common_dir, self.path)
            if self.repository_settings.share and self.checkout
            else None
        )

    async def tear_down(self) -> str:
        """Run the teardown, if there is one. Return why it failed, or ""."""
        if self.repository_settings.teardown is None:
            return ""
        outcome, printed = await self.run(
            "teardown", self.repository_settings.teardown, self.repository_settings.teardown_minutes
        )
        return "" if outcome.ok else f"{outcome}. {printed[-_OUTPUT_LIMIT:]}".strip()


def _slug(home: str, handle: str) -> str:
    """Return a prefix for names of containers and databases.

    No other home or workspace has it.
    """
    return f"fj-{home}-{handle.partition('-')[0]}"


def command_handles(handle: str, settings: RepositorySettings) -> list[str]:
    """Return the handles of all commands that may run before a teardown."""
    return run_handles(handle, "verify", *(["share"] if settings.share else []), *(["setup"] if settings.setup else []))


def find_account(
    services: Services, environment: Mapping[str, str], agent: str | None, settings: RepositorySettings
) -> str:
    """Return the vendor account that an agent's model calls count against.

    Return "" if the program calls no model.

    Args:
        environment: The environment of the lead.
        agent: The name of the agent program in the settings.
    """
    program = services.settings.program(agent)
    made = compose(environment, program.environment, {}, wanted=settings.environment)
    return ADAPTERS[program.kind].account(made)
