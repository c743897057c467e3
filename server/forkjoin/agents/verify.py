"""An agent's work is tested in its worktree: by verify and, of a candidate, by its judge, which prints a number."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from forkjoin.agents.prepare import workplace_of
from forkjoin.core.model import Agent, Verify
from forkjoin.git.worktrees.worktree_folder import is_folder
from forkjoin.process.executor import read_end
from forkjoin.services import Services
from forkjoin.workspace.shell_command import Ran

#: Characters of the end of what a judge has printed that are told.
_WORDS = 400


class Verified(NamedTuple):
    """How verify went, and the end of what it printed; and the number that its judge printed, or a warning of it."""

    verdict: Verify = Verify.NONE
    words: str = ""
    score: float | None = None
    warnings: tuple[str, ...] = ()


async def verify(services: Services, agent: Agent, environment: Mapping[str, str]) -> Verified:
    """Run verify in the agent's worktree, and its judge where that passes.

    The judge's last line on stdout is a number, however it exits: `grep -c` tells 0 by exit 1.
    """
    if not is_folder(Path(agent.worktree.path)):  # what the agent has put there may lead anywhere
        return Verified(Verify.FAILED, "the agent removed its worktree")
    workplace, minutes = await workplace_of(services, agent, environment), services.settings.limits.verify_minutes
    verdict, words = Verify.NONE, ""
    if agent.spec.verify:
        outcome, printed = await workplace.run("verify", agent.spec.verify, minutes)
        verdict, words = Verify.PASSED if outcome.ok else Verify.FAILED, f"{printed}\n[{outcome}]".strip()
    if agent.spec.judge is None or verdict is Verify.FAILED:
        return Verified(verdict, words)
    ran = await workplace.run("judge", agent.spec.judge, minutes, apart=True)
    score = _number(ran)
    return Verified(verdict, words, score, () if score is not None else (await _no_number(services, agent, ran),))


def _number(ran: Ran) -> float | None:
    last = ran.printed.rpartition("\n")[2]
    try:
        number = float(last) if ran.outcome.kind == "exited" else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


async def _no_number(services: Services, agent: Agent, ran: Ran) -> str:
    redact_end = services.environments.redact_end
    errors = await read_end(services.executor, f"{agent.handle}-judge", _WORDS, redact_end, errors=True)
    words = errors.text or ran.printed
    return f"Its judge printed no number as its last line ({ran.outcome}): {words.strip()[-_WORDS:]}"
