"""New agents are recorded: those of a spawn, or with a landing's answer those that resolve its conflicts."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from forkjoin.model import lead_of
from forkjoin.record import nesting, rows
from forkjoin.record.names import Names
from forkjoin.record.ports import Ports


def add_agents(q: Any, ports: Ports, new: Sequence[rows.NewAgent], place: rows.Place) -> list[int]:
    """Record these agents, within a transaction; their numbers."""
    nesting.count_in(q, new)
    names = Names(q)
    added = [_add_agent(q, one, names, ports.take(one.recipe.ports)) for one in new]
    numbers = [number for number, _ in added]
    for one, (number, name) in zip(new, added, strict=True):
        branch, worktree = place(number, name)
        others = {
            "after": _numbers(one.after, numbers),
            "best_of": tuple(_numbers(others, numbers) for others in one.best_of),
            "base_agents": _numbers(one.base_agents, numbers),
        }
        contest = one.candidate and number + 1 - one.candidate
        q.place_agent(number=number, branch=branch, worktree=worktree, contest=contest, **others)
    return numbers


def _add_agent(q: Any, one: rows.NewAgent, names: Names, port_base: int) -> tuple[int, str]:
    """Record an agent; its number and name."""
    name, contest_name = names.take(one)
    said = asdict(one) | rows.of_spec(one.spec) | {"name": name, "contest_name": contest_name}
    number: int = q.add_agent(**said, port_base=port_base, created=time.time())
    q.add_task(agent=number, task=one.spec.task)
    if one.spec.nesting and one.spec.nesting.budget_usd:
        q.set_limit(project=one.project, lead=lead_of(number), limit_usd=one.spec.nesting.budget_usd)
    return number, name


def _numbers(others: rows.Others, new: Sequence[int]) -> tuple[int, ...]:
    return *others.older, *(new[place] for place in others.new)
