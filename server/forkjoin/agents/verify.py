"""Running verify and judge in an agent's worktree. A judge prints the score of a candidate."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from forkjoin.agents.prepare import workspace_of
from forkjoin.core.model import Agent
from forkjoin.core.result import Verify
from forkjoin.git.worktrees.worktree_folder import is_folder
from forkjoin.process.executor import read_tail
from forkjoin.services import Services
from forkjoin.workspace.shell_command import CommandRun

#: The number of characters of a judge's output that a warning includes.
_WORDS = 400


class VerifyOutcome(NamedTuple):
    """The outcome of verify and judge, with the end of verify's output."""

    verdict: Verify = Verify.NONE
    words: str = ""
    score: float | None = None
    warnings: tuple[str, ...] = ()


async def verify(services: Services, agent: Agent, environment: Mapping[str, str]) -> VerifyOutcome:
    """Run the agent's verify command and, unless it fails, the judge.

    The last line of the judge's stdout is the score. Its exit code is ignored, since `grep -c` exits 1 if it prints 0.
    """
    if not is_folder(Path(agent.worktree.path)):  # the agent may have replaced it, for example by a symlink
        return VerifyOutcome(Verify.FAILED, "the agent removed its worktree")
    workspace, minutes = await workspace_of(services, agent, environment), services.settings.limits.verify_minutes
    verdict, words = Verify.NONE, ""
    if agent.spec.verify:
        outcome, printed = await workspace.run("verify", agent.spec.verify, minutes)
        verdict, words = Verify.PASSED if outcome.ok else Verify.FAILED, f"{printed}\n[{outcome}]".strip()
    if agent.spec.judge is None or verdict is Verify.FAILED:
        return VerifyOutcome(verdict, words)
    ran = await workspace.run("judge", agent.spec.judge, minutes, apart=True)
    score = _score(ran)
    return VerifyOutcome(
        verdict, words, score, () if score is not None else (await _warn_of_missing_score(services, agent, ran),)
    )


def _score(ran: CommandRun) -> float | None:
    last = ran.printed.rpartition("\n")[2]
    try:
        number = float(last) if ran.outcome.kind == "exited" else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


async def _warn_of_missing_score(services: Services, agent: Agent, ran: CommandRun) -> str:
    redact_end = services.environments.redact_end
    errors = await read_tail(services.executor, f"{agent.handle}-judge", _WORDS, redact_end, errors=True)
    words = errors.text or ran.printed
    return f"Its judge printed no number as its last line ({ran.outcome}): {words.strip()[-_WORDS:]}"
