"""How long to rest before the next try. Pure."""


def backoff_s(tries: int, first_s: float, longest_s: float, jitter: float) -> float:
    """Seconds to rest after so many tries, twice as many after each.

    Args:
        jitter: From 0 to 1, drawn for this rest: so that those who failed together don't come back together.
    """
    return min(first_s * 2.0 ** min(tries, 32), longest_s) * (1 + jitter)
