"""How long a test is fed what nobody meant: the same each time, unless FORKJOIN_FUZZ asks for more."""

import os

from hypothesis import HealthCheck, settings


def fuzzed(examples: int) -> settings:
    """So many examples, always the same; FORKJOIN_FUZZ=20 makes it twenty times as many, and others each time."""
    times = int(os.environ.get("FORKJOIN_FUZZ", "1"))
    return settings(
        derandomize=times == 1,
        database=None,
        deadline=None,
        max_examples=examples * times,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
