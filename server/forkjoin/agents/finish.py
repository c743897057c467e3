"""Finishing an attempt: uncommitted work is committed, verify runs, and the result is written.

Each step can safely be repeated, and the last one is a single transaction. A daemon that takes over starts again with
the first step.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from forkjoin.adapters.contract import Adapter, Conclusion
from forkjoin.agents.attempt_outcome import conclude
from forkjoin.agents.foreign_ref_changes import find_foreign_ref_changes
from forkjoin.agents.lead_environment import await_environment
from forkjoin.agents.stop import end_processes
from forkjoin.agents.verify import VerifyOutcome, verify
from forkjoin.core.error import ForkjoinError
from forkjoin.core.merge_job import MergeJobState
from forkjoin.core.model import Agent, Merge, State
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import Result, Verify
from forkjoin.git.file_names import printable_list
from forkjoin.git.git_config import find_warnings
from forkjoin.git.refs import find_tip
from forkjoin.git.unsaved.unsaved_work import UnsavedWork, find_unsaved_work
from forkjoin.git.worktrees import autocommit, merge_in_worktree
from forkjoin.git.worktrees.release_branches import release_other_branches
from forkjoin.git.worktrees.sparse_checkout import is_sparse
from forkjoin.git.worktrees.worktree_folder import find_registered_worktree
from forkjoin.services import Services
from forkjoin.store.rows import RESTORED
from forkjoin.workspace import config_tampering
from forkjoin.workspace.agent_work import commit_uncommitted, find_result_commit, measure_work
from forkjoin.workspace.shell_command import run_handles

#: The maximum length of a summary, in characters.
SUMMARY_LIMIT = 240


async def finish(services: Services, adapter: Adapter, agent: Agent, outcome: Outcome) -> None:
    """Commit and verify the agent's work, and record result and final state."""
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    concluded = await conclude(services, adapter, agent, outcome)
    await services.store.changes.until(partial(_unless_branch_moves, services, agent))
    left = await _commit_work(services, common_dir, agent)
    if concluded.ok and agent.conflict.agent is not None and (why := await _why_unresolved(common_dir, agent, left)):
        concluded = replace(concluded, ok=False, error=why)
    verified, is_tested = VerifyOutcome(), bool(agent.spec.verify or agent.spec.judge)
    if (
        is_tested
        and concluded.ok
        and not agent.stop_asked
        and (environment := await await_environment(services, agent))
    ):
        verified = await _verify(services, common_dir, agent, environment)
    now = await services.store.agents.get(agent.number)
    if now.stop_asked and not agent.stop_asked:  # the stop was requested meanwhile
        await end_processes(services, now)
    ref_warnings = await _release_branches(services, common_dir, agent)
    result = await _result(
        services, adapter, now, _EndedAttempt(common_dir, outcome, concluded, left, verified, ref_warnings)
    )
    await services.store.lifecycle.finish(now, result, await _merge_state(services, now, result))
    await config_tampering.delete_snapshot(services, agent)


async def _verify(services: Services, common_dir: str, agent: Agent, environment: Mapping[str, str]) -> VerifyOutcome:
    """Run verify and judge. Add a warning if the worktree is a sparse checkout."""
    place = await find_registered_worktree(common_dir, Path(agent.worktree.path))
    is_partial = place is not None and await is_sparse(place.folder)
    verified = await verify(services, agent, environment)
    if is_partial and verified.verdict is not Verify.NONE:
        words = "Its verify saw only some of the files: the worktree is a sparse checkout. A merge verifies all files."
        verified = verified._replace(warnings=(*verified.warnings, words))
    return verified


async def _release_branches(services: Services, common_dir: str, agent: Agent) -> list[str]:
    """Detach the worktree from other branches.

    Return warnings about these and about changed refs.
    """
    freed = await release_other_branches(common_dir, Path(agent.worktree.path), agent.worktree.branch, agent.slug)
    return [*freed, *await find_foreign_ref_changes(services, agent, common_dir)]


async def _unless_branch_moves(services: Services, agent: Agent) -> bool | None:
    """Return `True`, or `None` while a merge is moving the agent's branch.

    Only a merge that the agent requested itself can be under way.
    """
    moving = [merge for merge in await services.store.merges.open() if merge.state is MergeJobState.MOVING]
    return not any(merge.requesting_agent == agent.number for merge in moving) or None


async def finish_as_failed(services: Services, agent: Agent, words: str) -> None:
    """Record a failed result after an unexpected error.

    The result includes the agent's work if git can read it.
    """
    work: dict[str, Any] = {}
    warnings: list[str] = []
    with suppress(ForkjoinError, OSError):
        common_dir = (await services.store.projects.get(agent.project)).common_dir
        if agent.worktree.prepared:
            warnings = await _release_branches(services, common_dir, agent)
        if agent.worktree.prepared and (tip := await find_tip(common_dir, agent.ref)):
            work = await measure_work(common_dir, agent, tip)
    with suppress(ForkjoinError, OSError):
        warnings += await config_tampering.find_tampering_warnings(services, agent)
    result = Result(
        agent.attempt, State.FAILED, words[:SUMMARY_LIMIT], "", error=words, warnings=tuple(warnings), **work
    )
    unknown = Merge.UNMERGED if agent.timing.started else Merge.NOTHING
    await services.store.lifecycle.finish(
        agent, result, await _merge_state(services, agent, result) if work else unknown
    )
    await config_tampering.delete_snapshot(services, agent)


async def _merge_state(services: Services, agent: Agent, result: Result) -> Merge:
    """Return the merge state for the result.

    A merged branch without new commits stays merged.
    """
    if agent.history.was_merged and await find_result_commit(services.store, agent) == result.commit:
        return Merge.MERGED
    return Merge.UNMERGED if result.commits else Merge.NOTHING


async def _commit_work(services: Services, common_dir: str, agent: Agent) -> autocommit.AutocommitResult:
    """Commit uncommitted work, and return the state of the branch.

    Once verify or judge has begun, nothing is committed: the files may be theirs.
    """
    kinds = [kind for kind, command in (("verify", agent.spec.verify), ("judge", agent.spec.judge)) if command]
    tests = [await services.executor.outcome(handle) for handle in run_handles(agent.handle, *kinds)]
    if any(test.kind != "not_started" for test in tests):
        return autocommit.AutocommitResult(await find_tip(common_dir, agent.ref), 0, [])
    message = f"Uncommitted work of {agent.label}\n\nForkjoin-Agent: {agent.id}"
    return await commit_uncommitted(services.store, common_dir, agent, message)


async def _why_unresolved(common_dir: str, agent: Agent, left: autocommit.AutocommitResult) -> str | None:
    """Return why the agent has not resolved its conflict, or `None` if it has."""
    if left.tip is None:
        return "its branch is gone"
    return await merge_in_worktree.describe_unresolved(
        common_dir, agent.worktree.base, agent.conflict.commit, left.tip, left.conflicts
    )


class _EndedAttempt(NamedTuple):
    """Everything that is known of an attempt that has ended."""

    common_dir: str
    outcome: Outcome
    concluded: Conclusion
    left: autocommit.AutocommitResult
    verified: VerifyOutcome
    ref_warnings: list[str]  #: warnings about other branches


async def _result(services: Services, adapter: Adapter, agent: Agent, ended: _EndedAttempt) -> Result:
    """Return the result of an attempt, with what its branch contains."""
    common_dir, outcome, concluded, left, verified, ref_warnings = ended
    work = await measure_work(common_dir, agent, left.tip)
    warnings = [*concluded.warnings, *left.warnings, *verified.warnings, *ref_warnings]
    warnings += await _warn_of_dropped(agent, ended) if concluded.ok else []
    warnings += await _warn_of_unsaved(common_dir, agent)
    warnings += await _warn(services, agent, outcome, has_work=bool(work["commits"]))
    warnings += [*await config_tampering.find_tampering_warnings(services, agent), *await find_warnings(common_dir)]
    failed = "verify failed: see verify_output" if verified.verdict is Verify.FAILED else None
    return Result(
        attempt=agent.attempt,
        state=final_state(outcome, stop_asked=agent.stop_asked, concluded_ok=concluded.ok, verify=verified.verdict),
        summary="Stopped before its end." if agent.stop_asked else _summarize(concluded, adapter, verified),
        output=concluded.output,
        **work,
        verify=verified.verdict,
        verify_output=verified.words,
        score=verified.score,
        cost_usd=agent.money.cost_usd,
        usage=concluded.usage,
        duration_s=outcome.duration_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        error=None if agent.stop_asked else concluded.error or failed,
        warnings=(*([RESTORED] if agent.history.restored else []), *warnings),
    )


def final_state(outcome: Outcome, *, stop_asked: bool, concluded_ok: bool, verify: Verify) -> State:
    """Return the final state for an attempt.

    A requested stop takes precedence over the outcome.
    """
    if stop_asked:
        return State.STOPPED
    match outcome.kind:
        case "timed_out":
            return State.TIMED_OUT
        case "lost":
            return State.LOST
        case "exited" | "signalled" | "not_started" | "limited":
            return State.SUCCEEDED if concluded_ok and verify is not Verify.FAILED else State.FAILED


def _summarize(concluded: Conclusion, adapter: Adapter, verified: VerifyOutcome) -> str:
    """Return a one-line summary of the attempt.

    The summary is the error of a failed attempt. Otherwise it is the beginning of the last message, or a command's
    last line.
    """
    if concluded.error:
        text = concluded.error
    elif verified.verdict is Verify.FAILED:
        text = f"verify failed: {_last_line(verified.words.rpartition('[')[0])}"
    elif adapter.MAKES_EVENTS:
        text = concluded.output
    else:
        text = _last_line(concluded.output)
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()[:SUMMARY_LIMIT]


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


async def _warn_of_dropped(agent: Agent, ended: _EndedAttempt) -> list[str]:
    """Return a warning for each side of a conflict that a resolution leaves out."""
    if agent.conflict.agent is None or ended.left.tip is None:
        return []
    sides = {
        agent.worktree.base: "the branch that it should be merged into",
        agent.conflict.commit: f"a{agent.conflict.agent}",
    }
    with suppress(ForkjoinError):  # for example if the histories have no common commit
        return await merge_in_worktree.find_dropped_changes(ended.common_dir, sides, ended.left.tip)
    return []


async def _warn_of_unsaved(common_dir: str, agent: Agent) -> list[str]:
    """Return a warning if work in nested repositories exists only in the worktree."""
    found: list[UnsavedWork] = []
    with suppress(ForkjoinError):  # a removal checks again, and reports the error
        found = (
            await find_unsaved_work(common_dir, Path(agent.worktree.path), agent.worktree.base)
            if agent.worktree.prepared
            else []
        )
    names = printable_list([str(work) for work in found])
    return [f"This work exists only in the worktree, and is not merged: {names}."] if found else []


async def _warn(services: Services, agent: Agent, outcome: Outcome, *, has_work: bool) -> list[str]:
    """Return warnings about processes, refused calls, costs and nested agents."""
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
