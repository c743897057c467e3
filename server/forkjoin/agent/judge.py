"""Judging: a command that is run in the worktree of each candidate for a task, and prints how good its work is."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from forkjoin.agent.prepare import workplace_of
from forkjoin.attempt.shell import Ran
from forkjoin.model import Agent
from forkjoin.rooms import Rooms

#: Characters of the end of what a judge has printed that are told.
_WORDS = 400


class Judged(NamedTuple):
    """The number that a judge has printed; or none, and what it printed instead."""

    score: float | None = None
    warnings: tuple[str, ...] = ()


async def judge(rooms: Rooms, agent: Agent, command: str, environment: Mapping[str, str]) -> Judged:
    """Run an agent's judge, whose last line on stdout is a number, however it exits: `grep -c` tells 0 by exit 1."""
    workplace = await workplace_of(rooms, agent, environment)
    ran = await workplace.run("judge", command, rooms.settings.limits.verify_minutes, apart=True)
    score = _number(ran)
    if score is not None:
        return Judged(score)
    errors = await rooms.executor.read_output(f"{agent.handle}-judge", -_WORDS, _WORDS, errors=True)
    words = rooms.environments.redact(errors.data.decode(errors="replace")) or ran.printed
    return Judged(None, (f"Its judge printed no number as its last line ({ran.outcome}): {words.strip()[-_WORDS:]}",))


def _number(ran: Ran) -> float | None:
    last = ran.printed.rpartition("\n")[2]
    try:
        number = float(last) if ran.outcome.kind == "exited" else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
