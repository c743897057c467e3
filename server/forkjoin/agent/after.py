"""Whom new agents come after: others of the same call, by name, or older ones, by id or name."""

import graphlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from forkjoin.error import CallerError
from forkjoin.model import FINAL, Agent, Spec, State
from forkjoin.record.store import Store


class After(NamedTuple):
    older: tuple[int, ...]  #: numbers
    new: tuple[int, ...]  #: places in the call


async def find_after(store: Store, project: int, specs: Sequence[Spec]) -> list[After]:
    """For each spec, whom it comes after."""
    places = {spec.name: place for place, spec in enumerate(specs) if spec.name}
    asked = dict.fromkeys(one for spec in specs for one in spec.after if one not in places)
    older = {one: await store.find(project, one) for one in asked}
    for spec in specs:
        _check_may_start(spec, older)
    found = [
        After(
            tuple({older[one].number: None for one in spec.after if one in older}),
            tuple({places[one]: None for one in spec.after if one in places}),
        )
        for spec in specs
    ]
    _check_no_circle(specs, found)
    return found


def _check_may_start(spec: Spec, older: Mapping[str, Agent]) -> None:
    for agent in (older[one] for one in spec.after if one in older):
        if agent.state in FINAL - {State.SUCCEEDED} and spec.on_failed_dependency == "skip":
            raise CallerError(
                f"{agent.label} {agent.state}: what comes after it would be skipped. Leave it out of `after`, or pass "
                "on_failed_dependency='run'. Nothing was spawned."
            )


def _check_no_circle(specs: Sequence[Spec], found: Sequence[After]) -> None:
    try:
        graphlib.TopologicalSorter({place: after.new for place, after in enumerate(found)}).prepare()
    except graphlib.CycleError as error:
        circle: list[int] = error.args[1]
        names = " after ".join(specs[place].name or "" for place in reversed(circle))
        raise CallerError(f"`after` goes in a circle: {names}. Nothing was spawned.") from None
