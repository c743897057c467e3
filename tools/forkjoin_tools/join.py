"""Joining: merge_worktree."""

from forkjoin.branch.repository import look
from forkjoin.config import Recipe
from forkjoin.landing.answer import Conflicted, Landed, Merged, Rejected, Skipped
from forkjoin.landing.queue import enqueue, wait_until_landed
from forkjoin.model import Text
from forkjoin.wanted import find_recipe
from pydantic import BaseModel, Field

from forkjoin_tools.desk import Desk, Ids, not_obeyed
from forkjoin_tools.size import ROOM, wire_size
from forkjoin_tools.strict import Arguments, tool


class MergeWorktree(Arguments):
    ids: Ids
    into: str | None = Field(None, description="Branch to merge into. Default: the one checked out here.")
    verify: Text | None = Field(
        None, description="Shell command run on each merged state before it lands; what fails it is left out."
    )
    dry_run: bool = Field(False, description="Only say what would merge and what conflicts; runs no verify.")


class MergeAnswer(BaseModel):
    merged: list[Merged]
    conflicted: list[Conflicted]
    rejected: list[Rejected]
    skipped: list[Skipped]
    target: str
    commit: str | None = None
    note: str | None = None


@tool(always_loaded=True)
async def merge_worktree(desk: Desk, arguments: MergeWorktree) -> MergeAnswer:
    """Merge the branches of agents that succeeded into a branch, in the order given, each verified first. Waits until
    done. What conflicts (files named) or fails verify is left out, the others land together; nothing is ever half
    merged, and uncommitted changes in the checkout stay as they are."""
    agents = await desk.find_all(arguments.ids)
    recipe, note = Recipe(), None
    if not arguments.dry_run and await desk.store.answered(desk.caller.call) is None:
        recipe, note = await find_recipe(desk.rooms.home, await look(desk.caller.session.folder))
    verify, dry_run = arguments.verify or recipe.verify, arguments.dry_run
    landing = await enqueue(desk.store, desk.caller, agents, arguments.into, verify, recipe, dry_run=dry_run)
    landed = await wait_until_landed(desk.store, landing)
    note = " ".join(filter(None, (note, *await not_obeyed(desk.caller.project.common_dir)))) or None
    for files, words in ((30, 2_000), (5, 300), (1, 60)):
        answer = _answer(landed, files, words, note)
        if wire_size(answer) <= ROOM:
            break
    return answer


def _answer(landed: Landed, files: int, words: int, note: str | None) -> MergeAnswer:
    """What became of a landing, with so many files named of each conflict and so much of each reason."""
    return MergeAnswer(
        merged=list(landed.merged),
        conflicted=[Conflicted(one.id, tuple(name[:words] for name in one.files[:files])) for one in landed.conflicted],
        rejected=[Rejected(one.id, one.why[:words]) for one in landed.rejected],
        skipped=[Skipped(one.id, one.why[:words]) for one in landed.skipped],
        target=landed.target,
        commit=landed.commit,
        note=note,
    )
