"""Commands without the daemon that only a person may run."""

import os

from forkjoin.core.error import CallerError
from forkjoin.core.paths import find_home


def require_person(act: str) -> None:
    """Raise a CallerError if an agent, or a command that checks its work, has started this process."""
    from forkjoin.process.process_owner import find_owner  # pydantic with it, which few commands need

    if os.environ.get("FORKJOIN_TOKEN") or find_owner(find_home().attempts.resolve(), os.getpid()):
        raise CallerError(f"An agent can't {act}; a person can, at a terminal of their own.")
