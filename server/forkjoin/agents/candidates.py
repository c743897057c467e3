"""Candidates: several agents on one task, of which only the best counts."""

from collections.abc import Sequence
from typing import NamedTuple

from forkjoin.core.agent_spec import Spec
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.scheduling.best_candidate import rank_candidates
from forkjoin.store.store import Store

#: The maximum number of agents in one call of spawn_agents. More are likely a mistake, and expensive.
MAX_AGENTS_PER_CALL = 250


class RequestedAgent(NamedTuple):
    """An agent that a call of spawn_agents requests.

    A spec with candidates requests one agent for each candidate.
    """

    spec: Spec  #: for a candidate, with the common name of the candidates
    candidate: int = 0  #: the agent's number among the candidates, from 1; 0 for a single agent
    candidates: int = 0  #: the number of candidates; 0 for a single agent

    @property
    def name(self) -> str | None:
        """Return the agent's own name, or `None` if it is derived from the task."""
        return f"{self.spec.name}-{self.candidate}" if self.candidate and self.spec.name else self.spec.name


def expand_candidates(specs: Sequence[Spec]) -> list[RequestedAgent]:
    """Return the agents that the specs request, in order.

    The candidates of one spec follow one another.

    Raises:
        CallerError: There are too many agents, or a judge without candidates.
    """
    wanted = [requested for spec in specs for requested in _expand(spec)]
    if len(wanted) > MAX_AGENTS_PER_CALL:
        raise CallerError(
            f"These are {len(wanted)} agents, including candidates. Spawn at most {MAX_AGENTS_PER_CALL} in one call. "
            "Nothing was spawned."
        )
    return wanted


def _expand(spec: Spec) -> list[RequestedAgent]:
    if spec.candidates is None:
        if spec.judge:
            raise CallerError(
                "judge chooses among candidates, and there are none. Pass `candidates`, too: a number, or a list of "
                "{agent, model}. To test a single agent, use `verify`. Nothing was spawned."
            )
        return [RequestedAgent(spec)]
    differences = [candidate.model_dump(exclude_none=True) for candidate in spec.candidates]
    specs = [spec.model_copy(update={"candidates": None, **difference}) for difference in differences]
    return [RequestedAgent(candidate_spec, n, len(specs)) for n, candidate_spec in enumerate(specs, 1)]


async def rank_agents(store: Store, agents: Sequence[Agent]) -> list[Agent]:
    """Return these candidates sorted by their results, the best first."""
    return rank_candidates(agents, await store.results.get_all(agents))
