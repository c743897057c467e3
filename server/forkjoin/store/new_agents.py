"""New agents are recorded: those of a spawn, or with a landing's answer those that resolve its conflicts."""

import time
from collections.abc import Sequence
from dataclasses import asdict

from forkjoin.core.agent_spec import Spec
from forkjoin.core.model import State, lead_of
from forkjoin.store import nesting, rows
from forkjoin.store.agent_names import Names
from forkjoin.store.port_blocks import find_ports
from forkjoin.store.queries import Queries

#: What every new one has, beside what it was asked for with.
_NEW = {"state": State.QUEUED, "attempt": 1, "removed": None, "restored": False, **asdict(rows.Asked())}


def add_agents(q: Queries, first_port: int, new: Sequence[rows.NewAgent], place: rows.Place) -> list[int]:
    """Record these agents, within a transaction; their numbers."""
    nesting.count_in(q, new)
    names, ports, now = Names(q), find_ports(q, first_port), time.time()
    first: int = q.handed_out() + 1
    numbers = range(first, first + len(new))
    for number, one in zip(numbers, new, strict=True):
        name, contest_name = names.take(one)
        branch, worktree = place(number, name)
        theirs = {
            "name": name,
            "contest_name": contest_name,
            "contest": one.candidate and number + 1 - one.candidate,
            "branch": branch,
            "worktree": worktree,
            "port_base": ports.take(one.recipe.ports),
            "after": _numbers(one.after, numbers),
            "best_of": tuple(_numbers(others, numbers) for others in one.best_of),
            "base_agents": _numbers(one.base_agents, numbers),
        }
        record(q, number, one.spec, _NEW | asdict(one) | theirs | {"now": now})
    return list(numbers)


def record(q: Queries, number: int, spec: Spec, columns: rows.Row) -> None:
    """Record an agent under its number, with its task, and with what those that it spawns may spend."""
    told = spec.model_dump_json(exclude_defaults=True, exclude={"task", "name"})
    q.add_agent(**columns | {"number": number, "spec": told, "priority": spec.priority, "budget_usd": spec.budget_usd})
    q.add_task(agent=number, task=spec.task)
    if spec.nesting and spec.nesting.budget_usd:
        q.set_limit(project=columns["project"], lead=lead_of(number), limit_usd=spec.nesting.budget_usd)


def _numbers(others: rows.Others, new: Sequence[int]) -> tuple[int, ...]:
    return *others.older, *(new[place] for place in others.new)
