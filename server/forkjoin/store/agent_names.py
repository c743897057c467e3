"""What new agents are called: as was asked for, or with the first number that is free, where that was ours to choose.

Several candidates for one task have a name together, and are called after it: `fix-1`, `fix-2` …
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator

from forkjoin.core.error import CallerError
from forkjoin.store.queries import Queries
from forkjoin.store.rows import NewAgent


class Names:
    """Of agents that are recorded in one transaction, each asked for before the next one is."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._suffixes: dict[str, Iterator[int]] = defaultdict(lambda: itertools.count(2))
        self._contest = ""

    def take(self, one: NewAgent) -> tuple[str, str]:
        """The agent's name, and the one of all candidates for its task, if there are others."""
        if not one.candidate:
            return self._find_free(one), ""
        if one.candidate == 1:
            self._contest = self._find_free(one)
        return f"{self._contest}-{one.candidate}", self._contest

    def _find_free(self, one: NewAgent) -> str:
        taken = self._find_taken(one, one.name)
        if taken is None:
            return one.name
        if not one.derived:
            raise CallerError(
                f"The name {taken[0]!r} is taken by a{taken[1]}, which is not merged yet. "
                "Give another name, or merge or remove that agent first."
            )
        names = (f"{one.name}-{n}" for n in self._suffixes[one.name])
        return next(name for name in names if self._find_taken(one, name) is None)

    def _find_taken(self, one: NewAgent, name: str) -> tuple[str, int] | None:
        """Which of the names that this one would take somebody has, and who."""
        for wanted in (name, *(f"{name}-{n + 1}" for n in range(one.candidates))):
            if holder := self._queries.name_holder(project=one.project, name=wanted):
                return wanted, holder
        return None
