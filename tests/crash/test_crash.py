"""Two worlds for as long as CI has time; `python -m crash` runs more of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from crash.run import run

#: Each world has at least so many rounds, and more until so many seconds are over.
ROUNDS, SECONDS = 12, 45.0


@pytest.mark.parametrize("seed", ["ci-1", "ci-2"])
def test_nothing_is_lost_whatever_is_killed(
    seed: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("figures", run(seed, ROUNDS, tmp_path, SECONDS))
