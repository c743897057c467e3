"""Some histories for as long as CI has time; `make adversary` plays hundreds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adversary.plan import Plan, plan_of
from adversary.run import run

#: How many histories of each seed are played.
HISTORIES = 5


@pytest.mark.parametrize("seed", ["ci-1", "ci-2", "ci-3", "ci-4"])
def test_every_invariant_holds_whatever_agents_and_repositories_do(
    seed: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("figures", run(seed, range(HISTORIES), tmp_path))


def test_a_history_is_played_again_by_its_text() -> None:
    plans = [plan_of("text", number) for number in range(200)]
    assert [Plan.parse(str(plan)) for plan in plans] == plans
