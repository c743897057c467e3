"""How many files the daemon may have open: all that it is allowed, while what it starts gets what it was given itself.

A program may close every descriptor that it could have, or count them (select(2)); a limit of half a million by
default would slow it down or break it.
"""

import contextlib
import resource

#: The limits, soft and hard, that this process was started with: its programs' own.
GIVEN = resource.getrlimit(resource.RLIMIT_NOFILE)


def raise_limit() -> None:
    """Let this process have as many open files as it may; done once, at the daemon's start."""
    _, hard = GIVEN
    with contextlib.suppress(ValueError, OSError):  # some systems let nobody have what they call the limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
