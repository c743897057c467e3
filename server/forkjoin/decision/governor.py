"""How much a vendor takes of an account. Pure: what was known and what happened → what is known.

Nobody tells how many may run at once, so it is found out as TCP finds it out for a network: a refusal halves what runs,
and for every while without one, one more may run (additive increase, multiplicative decrease). An account of which
nothing is known has no limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from forkjoin.model import Agent, State

#: Who makes model calls; one that is finishing makes none.
CALLING = frozenset({State.PREPARING, State.RUNNING, State.WAITING})

#: Seconds without a refusal after which one more may run.
GROWS_EVERY_S = 10.0
#: Refusals within so many seconds of each other tell of one limit.
_SAME_S = 5.0
#: How long nothing starts after a refusal that tells no time: doubled with each that follows.
_FIRST_REST_S, _LONGEST_REST_S = 5.0, 600.0
#: No vendor's limit of use lasts longer; what a program prints holds nobody longer than that.
_LONGEST_S = 8 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of an account whose vendor has refused a call."""

    most: int  #: how many may run at once
    closed_until: float  #: seconds since the epoch: until then none starts or goes on
    halved: float  #: when `most` was last halved
    changed: float  #: when it last changed
    refusals: int  #: in a row
    why: str  #: what the vendor said


@dataclass(frozen=True, slots=True)
class Refusal:
    """A vendor took no more.

    Attributes:
        wait_s: For how long, where that was said.
        until: Seconds since the epoch: when a limit of use is reset, where that was said.
        jitter: From 0 to 1, drawn for this refusal: so that not all who wait come back in one moment.
    """

    at: float
    why: str
    wait_s: float | None = None
    until: float | None = None
    jitter: float = 0


def refuse(before: Account | None, refusal: Refusal, running: int) -> Account:
    """What is known after a refusal, with so many running."""
    closed_until = min(_find_end(before, refusal), refusal.at + _LONGEST_S)
    if before and refusal.at < before.halved + _SAME_S:  # of calls that were under way already
        return replace(before, closed_until=max(before.closed_until, closed_until))
    return Account(
        most=max(1, min(running, before.most if before else running) // 2),
        closed_until=max(closed_until, before.closed_until if before else 0),
        halved=refusal.at,
        changed=refusal.at,
        refusals=before.refusals + 1 if before else 1,
        why=refusal.why,
    )


def _find_end(before: Account | None, refusal: Refusal) -> float:
    if refusal.until is not None:
        return refusal.until + refusal.jitter * GROWS_EVERY_S
    if refusal.wait_s is not None:
        return refusal.at + refusal.wait_s * (1 + refusal.jitter / 10)
    doublings = before.refusals if before else 0
    return refusal.at + min(_FIRST_REST_S * 2.0 ** min(doublings, 16), _LONGEST_REST_S) * (1 + refusal.jitter)


def grow(account: Account, now: float, enough: int) -> Account | None:
    """What is known after a while without a refusal; nothing any more once `enough` may run."""
    since = max(account.changed, account.closed_until)
    more = max(0, math.floor((now - since) / GROWS_EVERY_S))
    if not more:
        return account
    if account.most + more >= enough:
        return None
    return replace(account, most=account.most + more, changed=since + more * GROWS_EVERY_S, refusals=0)


def too_many(live: Sequence[Agent], accounts: Mapping[str, Account], now: float) -> list[Agent]:
    """Those that are to pause: of each account the youngest, where more run than its vendor takes.

    None does where the vendor takes nothing for long: a frozen program keeps its memory. Whoever calls is refused,
    ends, and is resumed.
    """
    found: list[Agent] = []
    for name, account in accounts.items():
        if account.closed_until > now + _LONGEST_REST_S:
            continue
        calling = sorted((one.number, one) for one in live if one.account == name and one.state in CALLING)
        found += [one for _, one in calling[account.most :] if one.state is State.RUNNING]
    return found


def next_growth(account: Account) -> float:
    """When, in seconds since the epoch, one more may run."""
    return max(account.changed, account.closed_until) + GROWS_EVERY_S
