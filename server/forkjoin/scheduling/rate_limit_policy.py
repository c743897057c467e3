"""The rate-limit policy: how many agents may run at once for one vendor account. Pure.

No vendor publishes how many agents may run at once. forkjoin finds the number by additive increase and multiplicative
decrease, as TCP does for a network. A refused call halves the number, and each ten seconds without a refusal allow one
more agent. An account that was never refused has no limit.
"""

import math
from dataclasses import dataclass, replace

from forkjoin.core.event import RateLimited
from forkjoin.scheduling.backoff import backoff_s

#: Seconds without a refusal after which one more agent may run.
RECOVERY_INTERVAL_S = 10.0
#: Seconds after a halving in which further refusals don't halve again: their calls were under way at the same time.
_SAME_REFUSAL_S = 5.0
#: Seconds in which no agent starts after a refusal that names no time: the first and the longest delay.
_FIRST_DELAY_S, MAX_DELAY_S = 5.0, 600.0
#: The most seconds for which one refusal closes an account. No usage limit of a vendor lasts longer.
_MAX_CLOSED_S = 8 * 24 * 3600.0
#: Characters of the vendor's message that are kept.
_MAX_REASON = 120


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The state of an account whose vendor has refused a call. Times are seconds since the epoch."""

    max_running: int  #: agents that may run at once
    closed_until: float = 0  #: no agent starts or goes on before this time
    halved_at: float = -math.inf  #: when `max_running` was last halved
    changed_at: float = 0  #: when `max_running` last changed
    refusals: int = 0  #: consecutive refusals, without a recovery between them
    reason: str = ""  #: the beginning of the vendor's message

    @property
    def recovers_at(self) -> float:
        """The time at which one more agent may run."""
        return max(self.changed_at, self.closed_until) + RECOVERY_INTERVAL_S


def record_refusal(
    before: RateLimit | None, refused: RateLimited, now: float, running: int, jitter: float
) -> RateLimit:
    """Return the account's limit after the vendor has refused a call.

    Args:
        before: The limit until now; `None` if the account had none.
        running: How many agents of the account run.
        jitter: A random number from 0 to 1 that keeps waiting agents from calling again at the same moment.
    """
    before = before or RateLimit(max(1, running))
    reopens_at = min(_find_reopening(before, refused, now, jitter), now + _MAX_CLOSED_S)
    closed_until = max(before.closed_until, reopens_at)
    if now < before.halved_at + _SAME_REFUSAL_S:
        return replace(before, closed_until=closed_until)
    max_running = max(1, min(running, before.max_running) // 2)
    reason = " ".join(refused.text[:1000].split())[:_MAX_REASON]
    return RateLimit(max_running, closed_until, now, now, before.refusals + 1, reason)


def _find_reopening(before: RateLimit, refused: RateLimited, now: float, jitter: float) -> float:
    """Return the time at which calls may be made again.

    The vendor's answer gives the time. If it doesn't, the delay grows with each refusal.
    """
    if refused.until is not None:
        return refused.until + jitter * RECOVERY_INTERVAL_S
    if refused.wait_s is not None:
        return now + min(refused.wait_s, MAX_DELAY_S) * (1 + jitter / 10)
    return now + backoff_s(before.refusals, _FIRST_DELAY_S, MAX_DELAY_S, jitter)


def recover(limit: RateLimit, now: float, unlimited: int) -> RateLimit | None:
    """Return the limit at `now`, if no call was refused since the last change.

    Args:
        unlimited: How many agents can run at once without the limit. Once the limit reaches this number, it has no
            effect any more, and `None` is returned.
    """
    more = math.floor((now - limit.recovers_at) / RECOVERY_INTERVAL_S) + 1
    if more <= 0:
        return limit
    if limit.max_running + more >= unlimited:
        return None
    changed_at = limit.recovers_at + (more - 1) * RECOVERY_INTERVAL_S
    return replace(limit, max_running=limit.max_running + more, changed_at=changed_at, refusals=0)
