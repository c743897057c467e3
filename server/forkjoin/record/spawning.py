"""New agents are recorded: those of a spawn, or with a landing's answer those that resolve its conflicts."""

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from forkjoin.error import CallerError
from forkjoin.record import rows
from forkjoin.record.ports import Ports


def add_agents(q: Any, ports: Ports, new: Sequence[rows.NewAgent], place: rows.Place) -> list[int]:
    """Record these agents, within a transaction; their numbers."""
    suffixes: dict[str, Iterator[int]] = defaultdict(lambda: itertools.count(2))
    names = (_free_name(q, one, suffixes[one.name]) for one in new)  # free while each before it is recorded
    added = [
        (_add_agent(q, one, name, ports.take(one.recipe.ports)), name) for one, name in zip(new, names, strict=True)
    ]
    for one, (number, name) in zip(new, added, strict=True):
        branch, worktree = place(number, name)
        after, base_agents = (
            (*others.older, *(added[other][0] for other in others.new)) for others in (one.after, one.base_agents)
        )
        q.place_agent(number=number, branch=branch, worktree=worktree, after=after, base_agents=base_agents)
    return [number for number, _ in added]


def _add_agent(q: Any, one: rows.NewAgent, name: str, port_base: int) -> int:
    said = asdict(one) | rows.of_spec(one.spec) | {"name": name}
    number: int = q.add_agent(**said, port_base=port_base, created=time.time())
    q.add_task(agent=number, task=one.spec.task)
    return number


def _free_name(q: Any, one: rows.NewAgent, suffixes: Iterator[int]) -> str:
    """The agent's name, or that name with the first of these numbers that is free where it was ours to choose."""
    holder: int | None = q.name_holder(project=one.project, name=one.name)
    if holder is None:
        return one.name
    if not one.derived:
        raise CallerError(
            f"The name {one.name!r} is taken by a{holder}, which is not merged yet. "
            "Give another name, or merge or remove that agent first."
        )
    names = (f"{one.name}-{n}" for n in suffixes)
    return next(name for name in names if q.name_holder(project=one.project, name=name) is None)
