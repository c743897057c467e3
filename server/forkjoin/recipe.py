"""Making a worktree ready as its repository wants it, for an agent or a landing: what is shared, then setup."""

from dataclasses import dataclass, field
from pathlib import Path

from forkjoin.attempt.shell import Ran, Shell, handles
from forkjoin.branch.place import Place
from forkjoin.branch.share import COPY, share
from forkjoin.config import Recipe
from forkjoin.model import Outcome


@dataclass(slots=True)
class Ready:
    """How it went; `failed` says why the worktree is not ready."""

    notes: list[str] = field(default_factory=list[str])
    failed: str = ""

    def add(self, kind: str, ran: Ran) -> None:
        self.notes.append(f"{kind}: {_took(ran.outcome)}")
        if not ran.outcome.ok:
            self.failed = f"{kind} failed: {ran.outcome}\n{ran.printed}".strip()


async def make_ready(shell: Shell, recipe: Recipe, checkout: str, place: Place) -> Ready:
    """Share and set up. What an earlier call for the same handle has begun is gone on with, and not done again."""
    ready = Ready()
    if recipe.share and checkout:
        copies, ready.notes = await share(Path(checkout), place, recipe.share)
        if copies:
            ready.add("share", await shell.run("share", COPY, recipe.setup_minutes, *copies))
    if recipe.setup and not ready.failed:
        ready.add("setup", await shell.run("setup", recipe.setup, recipe.setup_minutes))
    return ready


def handles_of(handle: str, recipe: Recipe) -> list[str]:
    """The handles of all that may run to make a worktree ready."""
    return handles(handle, *(["share"] if recipe.share else []), *(["setup"] if recipe.setup else []))


def _took(outcome: Outcome) -> str:
    return f"{outcome} in {outcome.duration_s:.1f} s"
