"""The check of commands that only a person may run, and that don't ask the daemon."""

import os

from forkjoin.core.error import CallerError
from forkjoin.core.paths import find_home


def require_person(act: str) -> None:
    """Raise CallerError unless a person started this process.

    Agents, and commands run for them such as verify, are refused.
    """
    from forkjoin.process.process_owner import find_owner  # it imports pydantic, which few commands need

    if os.environ.get("FORKJOIN_TOKEN") or find_owner(find_home().attempts.resolve(), os.getpid()):
        raise CallerError(f"An agent can't {act}. A person can, in a terminal of their own.")
