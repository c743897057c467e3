"""The dependencies of new agents: the agents that their `after` and `base` name.

An agent of the same call is named by its name, and an older agent by its id or name.
"""

import graphlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from forkjoin.agents.candidates import RequestedAgent
from forkjoin.core.agent_spec import Spec, number_of
from forkjoin.core.error import CallerError, UnknownAgentError
from forkjoin.core.model import FINAL, Agent, Project, State
from forkjoin.git import kept_refs
from forkjoin.store.rows import Others
from forkjoin.store.store import Store

#: The recorded agents that each name or id means. A name may mean several candidates.
_Older = Mapping[str, Sequence[Agent]]


class ResolvedDependencies(NamedTuple):
    """The agents that a new agent depends on."""

    others: Others  #: all agents that must end before the new agent starts
    best_of: tuple[Others, ...]  #: groups of which only the best agent counts; empty if no group has several members
    base: Others  #: the new agent starts from the work of the best of these; empty if `base` names no agent


async def find_dependencies(
    store: Store, project: Project, wanted: Sequence[RequestedAgent], commits: Mapping[str | None, str | None]
) -> list[ResolvedDependencies]:
    """Return the dependencies of each requested agent, in the order of `wanted`.

    A base means the first of these that fits: the name of an agent of the same call, an agent's id, a commit, the name
    of an older agent.

    Args:
        commits: The commit that git finds for each base; `None` if it finds none.

    Raises:
        CallerError: A named agent is unknown, was discarded or has failed, or the dependencies have a cycle.
    """
    new, specs = _find_new(wanted), [requested.spec for requested in wanted]
    older_names = dict.fromkeys(name for spec in specs for name in spec.after if name not in new)
    older = {name: await store.agents.find(project.number, name) for name in older_names}
    named = [base for base in commits if base and base not in new]
    bases = {base: await _find_base_agents(store, project.number, base, commits[base]) for base in named}
    for agents in (*older.values(), *bases.values()):
        await _check_kept(project.common_dir, agents)
    for spec in specs:
        before = [older.get(name, []) for name in spec.after]
        _check_not_skipped(spec, [*before, bases.get(spec.base or "", [])])
    found = [_dependencies_of(spec, new, older, bases) for spec in specs]
    _check_no_cycle(wanted, found)
    return found


def _find_new(wanted: Sequence[RequestedAgent]) -> dict[str, Others]:
    """Return the requested agents by name, as places in `wanted`.

    A candidate also has the name that its group has in common.
    """
    places: dict[str, tuple[int, ...]] = {}
    for place, requested in enumerate(wanted):
        for name in filter(None, {requested.name, requested.spec.name}):
            places[name] = (*places.get(name, ()), place)
    return {name: Others(new=found) for name, found in places.items()}


async def _find_base_agents(store: Store, project: int, base: str, commit: str | None) -> list[Agent]:
    """Return the recorded agents that a base means, or an empty list for a commit."""
    if commit and number_of(base) is None:
        return []
    try:
        return await store.agents.find(project, base)
    except UnknownAgentError as error:
        if commit:
            return []
        raise CallerError(
            f"base {base[:100]!r} names no commit of this repository (a branch, tag or id), and no agent. {error}"
        ) from None


def _dependencies_of(spec: Spec, new: Mapping[str, Others], older: _Older, bases: _Older) -> ResolvedDependencies:
    base = _others(spec.base or "", new, bases)
    named = [*(_others(name, new, older) for name in spec.after), base]
    numbers = dict.fromkeys(number for others in named for number in others.older)
    places = dict.fromkeys(place for others in named for place in others.new)
    are_several = any(len(others.older) + len(others.new) > 1 for others in named)
    best_of = filter(any, dict.fromkeys(named)) if are_several else ()
    return ResolvedDependencies(Others(tuple(numbers), tuple(places)), tuple(best_of), base)


def _others(name: str, new: Mapping[str, Others], older: _Older) -> Others:
    return new.get(name) or Others(tuple(agent.number for agent in older.get(name, ())))


async def _check_kept(common_dir: str, agents: Sequence[Agent]) -> None:
    """Raise a CallerError if the work of all these agents was discarded."""
    refs = [await kept_refs.find_kept_ref(common_dir, agent.slug) if agent.discarded else None for agent in agents]
    if agents and all(refs):
        raise CallerError(
            f"{agents[0].label} was removed, and its unmerged work with it. Its work is kept as {refs[0]}: pass "
            "this ref as `base`, or leave out the agent. Nothing was spawned."
        )


def _check_not_skipped(spec: Spec, before: Sequence[Sequence[Agent]]) -> None:
    """Raise a CallerError if the new agent would be skipped: a dependency has failed.

    Args:
        before: For each name in the spec's `after` and `base`, the recorded agents that it means.
    """
    for agents in before if spec.on_failed_dependency == "skip" else ():
        if agents and all(agent.state in FINAL - {State.SUCCEEDED} for agent in agents):
            raise CallerError(
                f"{', '.join(f'{agent.label} {agent.state}' for agent in agents)}: agents that depend on it are "
                "skipped. Leave it out, or pass on_failed_dependency='run'. Nothing was spawned."
            )


def _check_no_cycle(wanted: Sequence[RequestedAgent], found: Sequence[ResolvedDependencies]) -> None:
    """Raise a CallerError if an agent depends on itself, directly or through others."""
    try:
        graphlib.TopologicalSorter({place: after.others.new for place, after in enumerate(found)}).prepare()
    except graphlib.CycleError as error:
        cycle: list[int] = error.args[1]
        names = " after ".join(wanted[place].name or "" for place in reversed(cycle))
        raise CallerError(f"`after` has a cycle: {names}. Nothing was spawned.") from None
