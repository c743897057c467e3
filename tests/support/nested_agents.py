"""Agents that may spawn agents."""

import json
from typing import Any

from support.harness import (
    Lead,
)

TALK = "answer('up')\nhear()"


WAITS = "until test -e go; do sleep 0.05; done"


def calls(*steps: tuple[str, Any]) -> str:
    """Return a task for the scripted program that makes these tool calls."""
    return json.dumps(steps)


async def begin(lead: Lead, **nesting: Any) -> str:
    """Start an agent that may spawn others, and return its id."""
    (parent,) = await lead.spawn(WAITS, nesting=nesting, exclusive="database")
    await lead.until(parent, state="running")
    return parent
