"""Whether an attempt that met with passing trouble is followed by another, and when. Pure."""

_FIRST_S, _LONGEST_S = 5.0, 300.0


def pause(retried: int, most: int, jitter: float) -> float | None:
    """Seconds to rest before the next, after so many tries of at most `most`; none where that was the last.

    Args:
        jitter: From 0 to 1, drawn for this one: so that those that failed together don't come back together.
    """
    if retried >= most:
        return None
    return min(_FIRST_S * 2.0**retried, _LONGEST_S) * (1 + jitter)
