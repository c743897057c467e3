"""Agents that may spawn agents."""

import json
from typing import Any

from support.harness import (
    Lead,
)

TALK = "answer('up')\nhear()"


WAITS = "until test -e go; do sleep 0.05; done"


def calls(*steps: tuple[str, Any]) -> str:
    """The task of the scripted program that calls tools."""
    return json.dumps(steps)


async def begin(lead: Lead, **nesting: Any) -> str:
    """An agent at work that may spawn others so."""
    (parent,) = await lead.spawn(WAITS, nesting=nesting, exclusive="database")
    await lead.until(parent, state="running")
    return parent
