"""The warnings in an agent's result, which tell the lead what to check before it merges the agent's work."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from forkjoin.agents.verify import VerifyOutcome
from forkjoin.core.error import ForkjoinError
from forkjoin.core.model import Agent
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import Verify
from forkjoin.git.changed_refs import ChangedRef
from forkjoin.git.file_names import printable_list
from forkjoin.git.unsaved.unsaved_work import find_unsaved_work
from forkjoin.git.worktrees import merge_in_worktree
from forkjoin.services import Services


def warn_of_verify(verified: VerifyOutcome) -> list[str]:
    """Return warnings about a verify of some files only and a judge without a score."""
    warnings: list[str] = []
    if verified.missing_score:
        warnings.append(f"Its judge printed no number as its last line {verified.missing_score}")
    if verified.is_sparse and verified.verdict is not Verify.NONE:
        warnings.append(
            "Its verify saw only some of the files: the worktree is a sparse checkout. A merge verifies all files."
        )
    return warnings


def warn_of_ref_changes(changes: Sequence[ChangedRef] | None) -> list[str]:
    """Return a warning that names these changes of refs, or an empty list.

    Args:
        changes: The changes that forkjoin can't explain; `None` if git could not list the refs.
    """
    if changes is None:
        return [
            "forkjoin can't tell whether other branches changed while it ran: git could not list the refs at its end."
        ]
    named = printable_list([str(change) for change in changes])
    warning = f"While it ran, refs other than its own changed, and not by a merge: {named}. Check these changes."
    return [warning] if changes else []


async def warn_of_dropped_changes(common_dir: str, agent: Agent, tip: str | None) -> list[str]:
    """Return a warning for each side of a conflict that the agent's resolution drops.

    Return an empty list if the agent resolves no conflict.

    Args:
        tip: The last commit of the agent's branch; `None` if the branch is gone.
    """
    if agent.conflict.agent is None or tip is None:
        return []
    sides = {
        agent.worktree.base: "the branch that it should be merged into",
        agent.conflict.commit: f"a{agent.conflict.agent}",
    }
    with suppress(ForkjoinError):  # git can't compare them, for example because they have no common commit
        return await merge_in_worktree.find_dropped_changes(common_dir, sides, tip)
    return []


async def warn_of_unsaved_work(common_dir: str, agent: Agent) -> list[str]:
    """Return a warning that names work which exists only in nested repositories.

    Return an empty list if there is no such work, or if git can't tell.
    """
    if not agent.worktree.prepared:
        return []
    with suppress(ForkjoinError):  # remove_worktrees checks this again, and reports the error
        if found := await find_unsaved_work(common_dir, Path(agent.worktree.path), agent.worktree.base):
            names = printable_list([str(work) for work in found])
            return [f"This work exists only in the worktree, and is not merged: {names}."]
    return []


async def warn_of_attempt(services: Services, agent: Agent, outcome: Outcome, *, has_work: bool) -> list[str]:
    """Return warnings about processes, refused calls, costs and nested agents.

    Args:
        has_work: Whether the agent's branch has commits.
    """
    warnings: list[str] = []
    if outcome.survivors:
        warnings.append(f"These processes of the agent could not be ended: {', '.join(outcome.survivors[:10])}.")
    if outcome.ok and not has_work:
        warnings.append("The agent succeeded but changed nothing, so there is nothing to merge.")
    if refused := await services.store.events.refusals(agent):
        warnings.append(
            f"The agent made calls that no agent may make. They were refused: {printable_list(refused, 10)}."
        )
    if models := await services.store.budgets.unpriced_models(agent):
        warnings.append(f"The actual cost is higher than cost_usd: the price is unknown for {', '.join(models)}.")
    if stopped := [nested.label for nested in await services.store.agents.live_below([agent])]:
        sentence = "These agents, which it spawned, had not ended and were stopped. Their work is on their branches"
        warnings.append(f"{sentence}: {printable_list(stopped, 20)}.")
    return warnings
