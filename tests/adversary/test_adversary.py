"""A few histories of hostile agents. `make adversary` plays hundreds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adversary.plan import Plan, plan_of
from adversary.run import run


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("seed", ["ci-1", *(pytest.param(f"ci-{n}", marks=pytest.mark.soak) for n in (2, 3, 4))])
def test_every_invariant_holds_with_hostile_agents_in_an_unusual_repository(
    seed: str, number: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("figures", run(seed, range(number, number + 1), tmp_path))


def test_the_text_of_a_plan_is_parsed_to_an_equal_plan() -> None:
    plans = [plan_of("text", number) for number in range(200)]
    assert [Plan.parse(str(plan)) for plan in plans] == plans
