"""How much a vendor takes of an account. Pure: what was known and what happened → what is known.

Nobody tells how many may run at once, so it is found out as TCP finds it out for a network: a refusal halves what runs,
and for every while without one, one more may run (additive increase, multiplicative decrease). An account of which
nothing is known has no limit.
"""

import math
from dataclasses import dataclass, replace

from forkjoin.core.event import RateLimited
from forkjoin.scheduling.backoff import backoff_s

#: Seconds without a refusal after which one more may run.
RECOVERY_INTERVAL_S = 10.0
#: Refusals within so many seconds of each other tell of one limit.
_SAME_S = 5.0
#: How long nothing starts after a refusal that tells no time.
_FIRST_REST_S, MAX_DELAY_S = 5.0, 600.0
#: No vendor's limit of use lasts longer; what a program prints holds nobody longer than that.
_LONGEST_S = 8 * 24 * 3600.0
#: Characters of what the vendor said that are told.
_WHY_LIMIT = 120


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What is known of an account whose vendor has refused a call; times are seconds since the epoch."""

    most: int  #: how many may run at once
    closed_until: float = 0  #: until then none starts or goes on
    halved: float = -math.inf  #: when `most` was last halved
    changed: float = 0  #: when it last changed
    refusals: int = 0  #: in a row
    why: str = ""  #: what the vendor said

    @property
    def grows_at(self) -> float:
        """When one more may run."""
        return max(self.changed, self.closed_until) + RECOVERY_INTERVAL_S


def record_refusal(
    before: RateLimit | None, refused: RateLimited, now: float, running: int, jitter: float
) -> RateLimit:
    """What is known after a refusal, with so many running.

    Args:
        jitter: From 0 to 1, drawn for this refusal: so that not all who wait come back in one moment.
    """
    before = before or RateLimit(max(1, running))
    closed_until = max(before.closed_until, min(_find_end(before, refused, now, jitter), now + _LONGEST_S))
    if now < before.halved + _SAME_S:  # of calls that were under way already
        return replace(before, closed_until=closed_until)
    most = max(1, min(running, before.most) // 2)
    why = " ".join(refused.text[:1000].split())[:_WHY_LIMIT]
    return RateLimit(most, closed_until, now, now, before.refusals + 1, why)


def _find_end(before: RateLimit, refused: RateLimited, now: float, jitter: float) -> float:
    if refused.until is not None:
        return refused.until + jitter * RECOVERY_INTERVAL_S
    if refused.wait_s is not None:
        return now + min(refused.wait_s, MAX_DELAY_S) * (1 + jitter / 10)
    return now + backoff_s(before.refusals, _FIRST_REST_S, MAX_DELAY_S, jitter)


def record_quiet_time(known: RateLimit, now: float, enough: int) -> RateLimit | None:
    """What is known after a while without a refusal; nothing any more once `enough` may run."""
    more = math.floor((now - known.grows_at) / RECOVERY_INTERVAL_S) + 1
    if more <= 0:
        return known
    if known.most + more >= enough:
        return None
    changed = known.grows_at + (more - 1) * RECOVERY_INTERVAL_S
    return replace(known, most=known.most + more, changed=changed, refusals=0)
