"""Agents that agents have spawned: how many they may yet, counted in the transaction that records them."""

from collections import Counter
from collections.abc import Sequence

from forkjoin.core.error import CallerError
from forkjoin.store import rows
from forkjoin.store.queries import Queries


def count_in(q: Queries, new: Sequence[rows.NewAgent]) -> None:
    """Count these new agents in with those above them, within a transaction.

    Raises:
        CallerError: One above them is granted no more, or is about to end; the message says what is granted and left.
    """
    for number, count in Counter(one.parent for one in new if one.parent).items():
        for row in q.ancestors(number=number):
            above = rows.agent(row)
            if above.is_over:
                raise CallerError(f"{above.label} is at its end ({above.state}); nothing was spawned.")
            granted = above.spec.nesting.agents if above.spec.nesting else 0
            if above.lineage.spawned + count > granted:
                raise CallerError(
                    f"{above.label} was granted {granted} agents of its own, those that they spawn among them: "
                    f"{granted - above.lineage.spawned} are left, and {count} were asked for. Nothing was spawned."
                )
            q.add_spawned(number=above.number, count=count)
