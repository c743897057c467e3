"""Exponential backoff. Pure."""


def backoff_s(retries: int, first_s: float, max_s: float, jitter: float) -> float:
    """Return the seconds to wait before the next retry.

    The delay begins with `first_s`, doubles with each earlier retry, and is at most `max_s`, without the jitter.

    Args:
        retries: How many retries there were already.
        jitter: A random number from 0 to 1. It makes the delay up to twice as long, so that retries spread out.
    """
    return min(first_s * 2.0 ** min(retries, 32), max_s) * (1 + jitter)
