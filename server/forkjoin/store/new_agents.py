"""The recording of new agents, inside the transaction of a spawn or of a merge job that spawns resolvers."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from forkjoin.core.agent_spec import Spec
from forkjoin.core.error import CallerError
from forkjoin.core.model import State, lead_of
from forkjoin.store import rows
from forkjoin.store.agent_names import AgentNames
from forkjoin.store.port_blocks import find_ports
from forkjoin.store.queries import Queries

#: Values of columns that are the same for every new agent.
_INITIAL = {"state": State.QUEUED, "attempt": 1, "removed": None, "restored": False, **asdict(rows.Asked())}


def add_agents(q: Queries, first_port: int, new: Sequence[rows.NewAgent], place: rows.Place) -> list[int]:
    """Record these agents, and return their numbers.

    Args:
        first_port: The port at which the search for free blocks of ports begins.

    Raises:
        CallerError: A name is taken, no block of ports is free, or the spawning agent may spawn no more agents.
    """
    _count_spawned(q, new)
    names, ports, now = AgentNames(q), find_ports(q, first_port), time.time()
    first: int = q.handed_out() + 1
    numbers = range(first, first + len(new))
    for number, agent in zip(numbers, new, strict=True):
        name, group_name = names.take(agent)
        branch, worktree = place(number, name)
        assigned = {
            "name": name,
            "contest_name": group_name,
            "contest": agent.candidate and number + 1 - agent.candidate,
            "branch": branch,
            "worktree": worktree,
            "port_base": ports.take(agent.recipe.ports),
            "after": _resolve(agent.after, numbers),
            "best_of": tuple(_resolve(group, numbers) for group in agent.best_of),
            "base_agents": _resolve(agent.base_agents, numbers),
        }
        record(q, number, agent.spec, _INITIAL | asdict(agent) | assigned | {"now": now})
    return list(numbers)


def record(q: Queries, number: int, spec: Spec, columns: rows.Row) -> None:
    """Record an agent and its task, and the limit of its nested agents' budget."""
    text = spec.model_dump_json(exclude_defaults=True, exclude={"task", "name"})
    q.add_agent(**columns | {"number": number, "spec": text, "priority": spec.priority, "budget_usd": spec.budget_usd})
    q.add_task(agent=number, task=spec.task)
    if spec.nesting and spec.nesting.budget_usd:
        q.set_limit(project=columns["project"], lead=lead_of(number), limit_usd=spec.nesting.budget_usd)


def _count_spawned(q: Queries, new: Sequence[rows.NewAgent]) -> None:
    """Add these agents to the counts of spawned agents of all their ancestors.

    Raises:
        CallerError: An ancestor has ended or is being stopped, or was granted fewer agents.
    """
    for number, count in Counter(agent.parent for agent in new if agent.parent).items():
        for row in q.ancestors(number=number):
            ancestor = rows.agent(row)
            if ancestor.is_over:
                raise CallerError(
                    f"{ancestor.label} has ended or is being stopped ({ancestor.state}). Nothing was spawned."
                )
            granted = ancestor.spec.nesting.agents if ancestor.spec.nesting else 0
            if ancestor.lineage.spawned + count > granted:
                raise CallerError(
                    f"{ancestor.label} was granted {granted} agents of its own, including agents that they spawn: "
                    f"{granted - ancestor.lineage.spawned} are left, and {count} were asked for. Nothing was spawned."
                )
            q.add_spawned(number=ancestor.number, count=count)


def _resolve(others: rows.Others, new: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of these agents, given the numbers of all new agents."""
    return *others.older, *(new[place] for place in others.new)
