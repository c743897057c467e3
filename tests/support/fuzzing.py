"""The hypothesis settings of fuzz tests."""

import os

from hypothesis import HealthCheck, settings


def fuzzed(examples: int) -> settings:
    """Return settings that try this number of examples, the same ones in every run.

    With FORKJOIN_FUZZ=20 the settings try twenty times as many, and different ones in every run.
    """
    times = int(os.environ.get("FORKJOIN_FUZZ", "1"))
    return settings(
        derandomize=times == 1,
        database=None,
        deadline=None,
        max_examples=examples * times,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
