"""A few rounds of the crash test. `make soak` runs more, and `python -m crash` any number."""

from collections.abc import Callable
from pathlib import Path

import pytest

from crash.run import run


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [
        ("ci-1", 4),
        pytest.param("ci-1", 25, marks=pytest.mark.soak),
        pytest.param("ci-2", 25, marks=pytest.mark.soak),
    ],
)
def test_no_work_or_answer_is_lost_when_any_process_is_killed(
    seed: str, rounds: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("figures", run(seed, rounds, tmp_path))
