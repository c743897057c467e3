"""A worktree in which an agent or a landing works: made ready as its repository wants it, run in, and torn down.

Whatever is run there has one environment, and a handle of its own: a daemon that takes over goes on with what was
begun, and does nothing twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from forkjoin.adapters.registry import ADAPTERS
from forkjoin.core.session import NO_RIGHTS
from forkjoin.core.settings import Recipe
from forkjoin.git.worktrees.files_shared_from_checkout import COPY, share
from forkjoin.git.worktrees.worktree_folder import Place, find_place
from forkjoin.process.environment import compose
from forkjoin.services import Services
from forkjoin.workspace.shell_command import CommandRun, Shell, handles

#: Characters of the end of what a teardown has printed that are told.
_WORDS = 400


class Ready(NamedTuple):
    """How it went, a note for each step; `failed` says why the worktree is not ready."""

    notes: list[str]
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A worktree that is there, whose it is, and what is wanted in it."""

    services: Services
    handle: str  #: begins with the id of whose it is: a1-1, t1
    common_dir: str
    path: Path
    checkout: str  #: the user's, with which it shares; '' in a bare repository
    recipe: Recipe
    port_base: int
    environment: Mapping[str, str]  #: of whoever asked for what is done there
    ours: Mapping[str, str]  #: variables beside those that every workspace has

    async def compose(
        self, settings: Mapping[str, str] | None = None, ours: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The environment in which all runs there, with what the settings, and we, add for a program."""
        place = await self._place()
        everywhere = {
            **self.services.home.variables,
            "FORKJOIN_TOKEN": NO_RIGHTS,
            "FORKJOIN_WORKTREE": str(self.path),
            "FORKJOIN_SLUG": _slug(self.services.home_name, self.handle),
            **({"FORKJOIN_PORT_BASE": str(self.port_base)} if self.port_base else {}),
        }
        ours = {**everywhere, **self.ours, **(ours or {})}
        ignore = place.ignore if place else None
        return compose(self.environment, settings or {}, ours, wanted=self.recipe.environment, ignore=ignore)

    async def run(self, kind: str, command: str, minutes: float, *words: str, apart: bool = False) -> CommandRun:
        """How a command line of this kind went there, which is not run twice."""
        made, limits = await self.compose(), self.services.settings.limits
        shell = Shell(self.services.executor, self.handle, str(self.path), made, limits.log_bytes, limits.per_agent)
        return await shell.run(kind, command, minutes, *words, apart=apart)

    async def make_ready(self) -> Ready:
        """Share with the checkout, and set up."""
        notes: list[str] = []
        steps: list[tuple[str, ...]] = [("setup", self.recipe.setup)] if self.recipe.setup else []
        if place := await self._place():
            copies, notes = await share(Path(self.checkout), place, self.recipe.share)
            steps = [("share", COPY, *copies), *steps] if copies else steps
        for kind, command, *words in steps:
            outcome, printed = await self.run(kind, command, self.recipe.setup_minutes, *words)
            notes.append(f"{kind}: {outcome} in {outcome.duration_s:.1f} s")
            if not outcome.ok:
                return Ready(notes, f"{kind} failed: {outcome}\n{printed}".strip())
        return Ready(notes)

    async def _place(self) -> Place | None:
        """The worktree as its repository knows it, where something is shared with it."""
        return await find_place(self.common_dir, self.path) if self.recipe.share and self.checkout else None

    async def tear_down(self) -> str:
        """Run the teardown, where there is one; how it failed, if it did."""
        if self.recipe.teardown is None:
            return ""
        outcome, printed = await self.run("teardown", self.recipe.teardown, self.recipe.teardown_minutes)
        return "" if outcome.ok else f"{outcome}. {printed[-_WORDS:]}".strip()


def _slug(home: str, handle: str) -> str:
    """What to call containers, databases and the like of whose handle this is: no other home has it, nor user."""
    return f"fj-{home}-{handle.partition('-')[0]}"


def command_handles(handle: str, recipe: Recipe) -> list[str]:
    """The handles of all that may run in a workspace before its teardown, beside a program."""
    return handles(handle, "verify", *(["share"] if recipe.share else []), *(["setup"] if recipe.setup else []))


def find_account(services: Services, environment: Mapping[str, str], agent: str | None, recipe: Recipe) -> str:
    """Whose rate limit the model calls of this program count against, in the environment of whoever asked for it."""
    program = services.settings.program(agent)
    made = compose(environment, program.environment, {}, wanted=recipe.environment)
    return ADAPTERS[program.kind].account(made)
