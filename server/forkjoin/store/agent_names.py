"""The names of new agents.

A name that the lead chose must be free. A name that forkjoin derived from the task gets a number if it is taken.
Candidates for one task share the name of their group, and are called `fix-1`, `fix-2` and so on.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator

from forkjoin.core.error import CallerError
from forkjoin.store.queries import Queries
from forkjoin.store.rows import NewAgent


class AgentNames:
    """The names of agents that one transaction records. Each agent must be recorded before the next `take`."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._suffixes: dict[str, Iterator[int]] = defaultdict(lambda: itertools.count(2))
        self._group = ""

    def take(self, new: NewAgent) -> tuple[str, str]:
        """Return the agent's name, and the name of its candidate group.

        The group's name is empty if the agent is no candidate.

        Raises:
            CallerError: The lead chose a name that is taken.
        """
        if not new.candidate:
            return self._find_free(new), ""
        if new.candidate == 1:
            self._group = self._find_free(new)
        return f"{self._group}-{new.candidate}", self._group

    def _find_free(self, new: NewAgent) -> str:
        taken = self._find_taken(new, new.name)
        if taken is None:
            return new.name
        if not new.derived:
            raise CallerError(
                f"The name {taken[0]!r} is taken by a{taken[1]}, which is not merged yet. "
                "Give another name, or merge or remove that agent first."
            )
        names = (f"{new.name}-{n}" for n in self._suffixes[new.name])
        return next(name for name in names if self._find_taken(new, name) is None)

    def _find_taken(self, new: NewAgent, name: str) -> tuple[str, int] | None:
        """Return the first taken name and the number of the agent that has the name.

        The names that must be free are `name` and the names of all candidates of the group. Returns None if they are.
        """
        for needed in (name, *(f"{name}-{n + 1}" for n in range(new.candidates))):
            if holder := self._queries.name_holder(project=new.project, name=needed):
                return needed, holder
        return None
