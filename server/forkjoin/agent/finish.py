"""An attempt has ended: loose work is committed, the diff counted, verify run, and the result written once.

Each step done twice is harmless, and the last is one transaction: a daemon that takes over begins with the first.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from forkjoin.adapter.contract import Adapter, Conclusion, Ended
from forkjoin.agent.listen import last_turn
from forkjoin.agent.prepare import handle_of, variables
from forkjoin.attempt.environment import compose
from forkjoin.attempt.verify import run_verify
from forkjoin.branch import diff, loose, repository
from forkjoin.decision.verdict import final_state
from forkjoin.model import OUTPUT_LIMIT, Agent, Merge, Outcome, Result, Verify
from forkjoin.rooms import Rooms

SUMMARY_LIMIT = 240
_ERROR_LIMIT = 4_000
_COMMITS_NAMED = 50


async def finish(
    rooms: Rooms, adapter: Adapter, agent: Agent, outcome: Outcome, environment: Mapping[str, str]
) -> None:
    """Write the attempt's result, and the agent's final state with it."""
    store = rooms.store
    project = await store.project_numbered(agent.project)
    concluded = await _conclude(rooms, adapter, agent, outcome)
    left = await loose.commit_loose(
        project.common_dir,
        Path(agent.worktree),
        agent.branch,
        f"Uncommitted work of {agent.label}\n\nForkjoin-Agent: {agent.id}",
        None,
        agent.slug,
    )
    tip = left.tip or agent.base
    commits = await repository.commits(project.common_dir, agent.base, tip, _COMMITS_NAMED)
    stat = await diff.measure(project.common_dir, agent.base, tip)
    verify, words = Verify.NONE, ""
    if concluded.ok and agent.spec.verify and not agent.stop_asked:
        verify, words = await _verify(rooms, agent, agent.spec.verify, environment)
    agent = await store.agent(agent.number)  # a stop may have been asked for meanwhile
    result = Result(
        attempt=agent.attempt,
        state=final_state(outcome, stop_asked=agent.stop_asked, concluded_ok=concluded.ok, verify=verify),
        summary="Stopped before its end." if agent.stop_asked else _summarize(concluded, adapter, verify, words),
        output=concluded.output[:OUTPUT_LIMIT],
        commits=tuple(commits),
        commit=left.tip,
        files_changed=stat.files_changed,
        insertions=stat.insertions,
        deletions=stat.deletions,
        verify=verify,
        verify_output=words,
        cost_usd=concluded.cost_usd,
        usage=concluded.usage,
        duration_s=outcome.duration_s,
        error=None if agent.stop_asked else _error(concluded, verify),
        warnings=(*concluded.warnings, *left.warnings, *_warn(outcome, commits)),
    )
    await store.finish(agent, result, Merge.UNMERGED if commits else Merge.NOTHING)


async def _conclude(rooms: Rooms, adapter: Adapter, agent: Agent, outcome: Outcome) -> Conclusion:
    handle = handle_of(agent)
    hide = rooms.environments.redact
    turn = await last_turn(rooms, adapter, agent) if adapter.MAKES_EVENTS else None
    output, _ = await rooms.executor.read_output(handle, -OUTPUT_LIMIT, OUTPUT_LIMIT)
    errors, _ = await rooms.executor.read_output(handle, -_ERROR_LIMIT, _ERROR_LIMIT, errors=True)
    printed, complained = hide(output.decode(errors="replace")), hide(errors.decode(errors="replace"))
    return adapter.conclude(Ended(outcome, turn, printed, complained, await rooms.store.denials(agent)))


async def _verify(rooms: Rooms, agent: Agent, command: str, environment: Mapping[str, str]) -> tuple[Verify, str]:
    """Run verify in the agent's worktree; how it went, and the end of what it printed."""
    composed = compose(environment, {}, await variables(rooms, agent))
    minutes = rooms.settings.limits.verify_minutes
    handle = handle_of(agent, "verify")
    outcome, printed = await run_verify(rooms.executor, handle, command, agent.worktree, composed, minutes)
    return Verify.PASSED if outcome.ok else Verify.FAILED, f"{printed}\n[{outcome}]".strip()


def _summarize(concluded: Conclusion, adapter: Adapter, verify: Verify, verify_words: str) -> str:
    """One line of what came of it: why it failed; else the beginning of the last message, or a command's last line."""
    if concluded.error:
        text = concluded.error
    elif verify is Verify.FAILED:
        text = f"verify failed: {_last_line(verify_words.rpartition('[')[0])}"
    elif adapter.MAKES_EVENTS:
        text = concluded.output
    else:
        text = _last_line(concluded.output)
    return re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()[:SUMMARY_LIMIT]


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


def _error(concluded: Conclusion, verify: Verify) -> str | None:
    if concluded.error:
        return concluded.error[:_ERROR_LIMIT]
    return "verify failed: see verify_output" if verify is Verify.FAILED else None


def _warn(outcome: Outcome, commits: list[str]) -> list[str]:
    warnings: list[str] = []
    if outcome.left:
        warnings.append(f"These processes of it could not be ended: {', '.join(outcome.left[:10])}.")
    if outcome.ok and not commits:
        warnings.append("It ended well but changed nothing: there is nothing to merge.")
    return warnings
