"""Finishing an attempt: uncommitted work is committed, verify runs, and the result is written.

Each step can safely be repeated, and the last one is a single transaction. A daemon that takes over starts again with
the first step.
"""

import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from forkjoin.adapters.contract import Adapter, Conclusion
from forkjoin.agents.attempt_outcome import conclude
from forkjoin.agents.foreign_ref_changes import find_foreign_ref_changes
from forkjoin.agents.lead_environment import await_environment
from forkjoin.agents.result_warnings import (
    warn_of_attempt,
    warn_of_dropped_changes,
    warn_of_ref_changes,
    warn_of_unsaved_work,
    warn_of_verify,
)
from forkjoin.agents.stop import end_processes
from forkjoin.agents.verify import VerifyOutcome, verify
from forkjoin.core.error import ForkjoinError
from forkjoin.core.merge_job import MergeJobState
from forkjoin.core.model import Agent, Merge, State
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import Result, Verify
from forkjoin.git.git_config import find_warnings
from forkjoin.git.refs import find_tip
from forkjoin.git.worktrees import autocommit, merge_in_worktree
from forkjoin.git.worktrees.release_branches import release_other_branches
from forkjoin.services import Services
from forkjoin.store.rows import RESTORED
from forkjoin.workspace import config_tampering
from forkjoin.workspace.agent_work import commit_uncommitted, find_result_commit, measure_work
from forkjoin.workspace.shell_command import run_handles

#: The maximum length of a summary, in characters.
SUMMARY_LIMIT = 240


async def finish(services: Services, adapter: Adapter, agent: Agent, outcome: Outcome) -> None:
    """Commit and verify the agent's work, and record the result and the final state."""
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    concluded = await conclude(services, adapter, agent, outcome)
    await services.store.changes.until(partial(_is_branch_at_rest, services, agent))
    committed = await _commit_work(services, common_dir, agent)
    if concluded.ok and (why := await _why_unresolved(common_dir, agent, committed)):
        concluded = replace(concluded, ok=False, error=why)
    verified, is_verifiable = VerifyOutcome(), concluded.ok and not agent.stop_asked
    has_test = bool(agent.spec.verify or agent.spec.judge)
    if is_verifiable and has_test and (environment := await await_environment(services, agent)):
        verified = await verify(services, agent, environment)
    now = await services.store.agents.get(agent.number)
    if now.stop_asked and not agent.stop_asked:  # a stop that came while verify ran left verify's processes to end
        await end_processes(services, now)
    ended = _EndedAttempt(common_dir, outcome, concluded, committed, verified)
    result = await _make_result(services, adapter, now, ended)
    await services.store.lifecycle.finish(now, result, await _merge_state(services, now, result))
    await config_tampering.delete_snapshot(services, agent)


async def _is_branch_at_rest(services: Services, agent: Agent) -> bool | None:
    """Return `True`, or `None` while a merge is moving the agent's branch.

    Only a merge that the agent itself requested can do that.
    """
    moving = [merge for merge in await services.store.merges.open() if merge.state is MergeJobState.MOVING]
    return not any(merge.requesting_agent == agent.number for merge in moving) or None


async def finish_as_failed(services: Services, agent: Agent, error: str) -> None:
    """Record a failed result after an unexpected error.

    The result includes the agent's commits if git can read them. Uncommitted work stays in the worktree.
    """
    work: dict[str, Any] = {}
    warnings: list[str] = []
    with suppress(ForkjoinError, OSError):
        common_dir = (await services.store.projects.get(agent.project)).common_dir
        if agent.worktree.prepared:
            warnings = await _release_branches(common_dir, agent)
            warnings += warn_of_ref_changes(await find_foreign_ref_changes(services, agent, common_dir))
        if agent.worktree.prepared and (tip := await find_tip(common_dir, agent.ref)):
            work = await measure_work(common_dir, agent, tip)
    with suppress(ForkjoinError, OSError):
        warnings += await config_tampering.find_tampering_warnings(services, agent)
    result = Result(
        agent.attempt, State.FAILED, error[:SUMMARY_LIMIT], "", error=error, warnings=tuple(warnings), **work
    )
    if work:
        merge = await _merge_state(services, agent, result)
    else:  # git could not read the branch, which may have commits if a program has run
        merge = Merge.UNMERGED if agent.timing.started else Merge.NOTHING
    await services.store.lifecycle.finish(agent, result, merge)
    await config_tampering.delete_snapshot(services, agent)


async def _release_branches(common_dir: str, agent: Agent) -> list[str]:
    """Detach the agent's worktree from branches other than its own.

    Return a warning for each of these branches.
    """
    return await release_other_branches(common_dir, Path(agent.worktree.path), agent.worktree.branch, agent.slug)


async def _merge_state(services: Services, agent: Agent, result: Result) -> Merge:
    """Return the merge state of the agent's branch after this result.

    A branch that was merged before its last attempt, and got no commit since, stays merged.
    """
    if agent.history.was_merged and await find_result_commit(services.store, agent) == result.commit:
        return Merge.MERGED
    return Merge.UNMERGED if result.commits else Merge.NOTHING


async def _commit_work(services: Services, common_dir: str, agent: Agent) -> autocommit.AutocommitResult:
    """Commit the agent's uncommitted work, and return the state of its branch.

    Nothing is committed if verify or judge has begun, before a daemon that took over: they may have written the files.
    """
    kinds = [kind for kind, command in (("verify", agent.spec.verify), ("judge", agent.spec.judge)) if command]
    tests = [await services.executor.outcome(handle) for handle in run_handles(agent.handle, *kinds)]
    if any(test.kind != "not_started" for test in tests):
        return autocommit.AutocommitResult(await find_tip(common_dir, agent.ref), 0, [])
    message = f"Uncommitted work of {agent.label}\n\nForkjoin-Agent: {agent.id}"
    return await commit_uncommitted(services.store, common_dir, agent, message)


async def _why_unresolved(common_dir: str, agent: Agent, committed: autocommit.AutocommitResult) -> str | None:
    """Return why the agent has not resolved the conflict that it was spawned for.

    Return `None` if it has, or if it was not spawned for a conflict.
    """
    if agent.conflict.agent is None:
        return None
    if committed.tip is None:
        return "its branch is gone"
    return await merge_in_worktree.describe_unresolved(
        common_dir, agent.worktree.base, agent.conflict.commit, committed.tip, committed.conflicts
    )


class _EndedAttempt(NamedTuple):
    """The outcome of an attempt's program, and of the steps that followed."""

    common_dir: str
    outcome: Outcome
    concluded: Conclusion
    committed: autocommit.AutocommitResult
    verified: VerifyOutcome


async def _make_result(services: Services, adapter: Adapter, agent: Agent, ended: _EndedAttempt) -> Result:
    """Return the result of an attempt, with the commits of the agent's branch."""
    common_dir, outcome, concluded, committed, verified = ended
    warnings = [*concluded.warnings, *committed.warnings, *warn_of_verify(verified)]
    warnings += await _release_branches(common_dir, agent)
    warnings += warn_of_ref_changes(await find_foreign_ref_changes(services, agent, common_dir))
    work = await measure_work(common_dir, agent, committed.tip)
    warnings += await warn_of_dropped_changes(common_dir, agent, committed.tip) if concluded.ok else []
    warnings += await warn_of_unsaved_work(common_dir, agent)
    warnings += await warn_of_attempt(services, agent, outcome, has_work=bool(work["commits"]))
    warnings += [*await config_tampering.find_tampering_warnings(services, agent), *await find_warnings(common_dir)]
    failed = "verify failed: see verify_output" if verified.verdict is Verify.FAILED else None
    return Result(
        attempt=agent.attempt,
        state=final_state(outcome, stop_asked=agent.stop_asked, concluded_ok=concluded.ok, verify=verified.verdict),
        summary="Stopped before its end." if agent.stop_asked else _summarize(concluded, adapter, verified),
        output=concluded.output,
        **work,
        verify=verified.verdict,
        verify_output=verified.output,
        score=verified.score,
        cost_usd=agent.money.cost_usd,
        usage=concluded.usage,
        duration_s=outcome.duration_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        error=None if agent.stop_asked else concluded.error or failed,
        warnings=(*([RESTORED] if agent.history.restored else []), *warnings),
    )


def final_state(outcome: Outcome, *, stop_asked: bool, concluded_ok: bool, verify: Verify) -> State:
    """Return the final state of an agent whose attempt had this outcome.

    A requested stop takes precedence over the outcome.

    Args:
        concluded_ok: Whether the adapter concluded that the program did its task.
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

    The summary of a failed attempt is the error, or the last line that verify printed. Otherwise it is the beginning of
    the model's last message or, for a command, the last line of its output.
    """
    if concluded.error:
        text = concluded.error
    elif verified.verdict is Verify.FAILED:
        text = f"verify failed: {_last_line(verified.output.rpartition('[')[0])}"
    elif adapter.MAKES_EVENTS:
        text = concluded.output
    else:
        text = _last_line(concluded.output)
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()[:SUMMARY_LIMIT]


def _last_line(text: str) -> str:
    """Return the last line that is not blank, or "" if all are."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
