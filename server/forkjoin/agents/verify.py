"""Running verify and judge in an agent's worktree. A judge prints the score of a candidate."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from forkjoin.agents.prepare import workspace_of
from forkjoin.core.model import Agent
from forkjoin.core.result import Verify
from forkjoin.git.worktrees.sparse_checkout import is_sparse
from forkjoin.git.worktrees.worktree_folder import find_registered_worktree, is_folder
from forkjoin.process.executor import read_tail
from forkjoin.services import Services
from forkjoin.workspace.shell_command import CommandRun

#: The number of characters of a judge's output that a warning includes.
_JUDGE_OUTPUT_LIMIT = 400


class VerifyOutcome(NamedTuple):
    """The outcome of an agent's verify and judge."""

    verdict: Verify = Verify.NONE
    output: str = ""  #: the end of verify's output, and how verify ended
    score: float | None = None  #: the number that the judge printed; None if it printed none, or did not run
    missing_score: str = ""  #: how a judge without a score ended, and the end of its output
    is_sparse: bool = False  #: whether the worktree is a sparse checkout, so that verify saw only some files


async def verify(services: Services, agent: Agent, environment: Mapping[str, str]) -> VerifyOutcome:
    """Run the agent's verify command and, unless it fails, the judge.

    The last line of the judge's stdout is the score. Its exit code is ignored, since `grep -c` exits 1 if it prints 0.

    Args:
        environment: The environment of the agent's lead.
    """
    if not is_folder(Path(agent.worktree.path)):  # the agent may have replaced it, for example by a symlink
        return VerifyOutcome(Verify.FAILED, "the agent removed its worktree")
    workspace, minutes = await workspace_of(services, agent, environment), services.settings.limits.verify_minutes
    registered = await find_registered_worktree(workspace.common_dir, workspace.path)
    verified = VerifyOutcome(is_sparse=registered is not None and await is_sparse(registered.folder))
    if agent.spec.verify:
        outcome, printed = await workspace.run("verify", agent.spec.verify, minutes)
        verdict = Verify.PASSED if outcome.ok else Verify.FAILED
        verified = verified._replace(verdict=verdict, output=f"{printed}\n[{outcome}]".strip())
    if agent.spec.judge is None or verified.verdict is Verify.FAILED:
        return verified
    ran = await workspace.run("judge", agent.spec.judge, minutes, apart=True)
    score = _read_score(ran)
    missing = "" if score is not None else await _describe_judge(services, agent, ran)
    return verified._replace(score=score, missing_score=missing)


def _read_score(ran: CommandRun) -> float | None:
    """Return the number on the last line of a judge's stdout, or `None`.

    The number must be finite.

    Also return `None` if the judge did not exit by itself.
    """
    last = ran.printed.rpartition("\n")[2]
    try:
        number = float(last) if ran.outcome.kind == "exited" else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


async def _describe_judge(services: Services, agent: Agent, ran: CommandRun) -> str:
    """Return how a judge ended, and the end of its stderr or else of its stdout."""
    redact_end = services.environments.redact_end
    errors = await read_tail(services.executor, f"{agent.handle}-judge", _JUDGE_OUTPUT_LIMIT, redact_end, errors=True)
    printed = errors.text or ran.printed
    return f"({ran.outcome}): {printed.strip()[-_JUDGE_OUTPUT_LIMIT:]}"
