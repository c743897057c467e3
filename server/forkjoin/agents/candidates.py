"""Candidates: several agents with one task, of which the best is wanted; each is an agent like any other."""

from collections.abc import Sequence
from typing import NamedTuple

from forkjoin.core.agent_spec import Spec
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.scheduling.best_candidate import rank_candidates
from forkjoin.store.store import Store

#: More at once is a mistake, or an attack on the person's purse.
MOST_AT_ONCE = 250


class Entrant(NamedTuple):
    """An agent that is asked for."""

    spec: Spec  #: of candidates, with the name of all of them
    candidate: int = 0  #: which of those for its task, from 1; 0: there are no others
    candidates: int = 0  #: how many there are

    @property
    def name(self) -> str | None:
        """What it is to be called; none where that is found from its task."""
        return f"{self.spec.name}-{self.candidate}" if self.candidate and self.spec.name else self.spec.name


def expand(specs: Sequence[Spec]) -> list[Entrant]:
    """The agents that these specs ask for; candidates stand one behind the other."""
    wanted = [one for spec in specs for one in _expand(spec)]
    if len(wanted) > MOST_AT_ONCE:
        raise CallerError(
            f"These are {len(wanted)} agents, candidates counted; spawn at most {MOST_AT_ONCE} in one call. "
            "Nothing was spawned."
        )
    return wanted


def _expand(spec: Spec) -> list[Entrant]:
    if spec.candidates is None:
        if spec.judge:
            raise CallerError(
                "judge chooses among candidates, and there are none: give `candidates` too, a number or a list of "
                "{agent, model}; a test of one agent is its `verify`. Nothing was spawned."
            )
        return [Entrant(spec)]
    differing = [one.model_dump(exclude_none=True) for one in spec.candidates]
    alone = [spec.model_copy(update={"candidates": None, **told}) for told in differing]
    return [Entrant(one, n, len(alone)) for n, one in enumerate(alone, 1)]


async def best_first(store: Store, agents: Sequence[Agent]) -> list[Agent]:
    """These candidates, the best first."""
    return rank_candidates(agents, await store.results.get_all(agents))
