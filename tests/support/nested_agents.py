"""Tasks of agents that may spawn agents."""

import json
from typing import Any

from support.harness import (
    Lead,
)

#: A task for the scripted program of fakes/claude.py: it answers once, then waits for a message.
TALK = "answer('up')\nhear()"

#: A task for `sh`: it runs until the file `go` is in its worktree.
WAITS = "until test -e go; do sleep 0.05; done"


def calls(*steps: tuple[str, Any]) -> str:
    """Return a task with which the program of fakes/parent.py makes these tool calls."""
    return json.dumps(steps)


async def begin(lead: Lead, **nesting: Any) -> str:
    """Start an agent that may spawn others, and return its id.

    It runs until the file `go` is in its worktree.
    """
    (parent,) = await lead.spawn(WAITS, nesting=nesting, exclusive="database")
    await lead.until(parent, state="running")
    return parent
