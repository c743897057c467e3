"""What a session is told at its start, and after it was compacted: which agents there are."""

import os
import subprocess
from textwrap import shorten
from typing import Any

from forkjoin.cli.agents import list_all
from forkjoin.cli.client import Client
from forkjoin.cli.requests import line
from forkjoin.cli.say import say
from forkjoin.connection.reach import DaemonError
from forkjoin.error import CallerError
from forkjoin.model import FINAL

#: Of how many is told, and in how many characters each what is asked.
_MOST, _LINE = 20, 240


def brief() -> None:
    """Tell in a line each which agents run, what is not merged, and what is asked, if anything (for a hook)."""
    if "FORKJOIN_TOKEN" in os.environ:
        return  # an agent of ours is not to care for others
    try:
        if subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, check=False).returncode:
            return  # no daemon is started for whoever is in no repository
        with Client() as client:
            agents = list_all(client)
            asked = client.call("list_requests")["requests"]
    except (CallerError, DaemonError, OSError):  # nothing to tell a session that only begins
        return
    live = [one for one in agents if one["state"] not in FINAL]
    told = live + [one for one in agents if one["state"] in FINAL and _is_open(one)]
    if told:
        say("Agents of forkjoin in this repository, under way or not merged (list_agents lists all):")
    for one in told[:_MOST]:
        say(f"{one['id']} {one['name']}: {one['state']}, {one['merge']}; {one['task']}")
    if len(told) > _MOST:
        say(f"… and {len(told) - _MOST} more")
    for request in asked[:_MOST]:
        say(f"{shorten(line(request), _LINE, placeholder=' … [list_requests tells all]')} (answer_request)")


def _is_open(ended: dict[str, Any]) -> bool:
    """Whether something is to be done about one that has ended: its work is not merged, or none came of it."""
    return ended["merge"] not in ("merged", "nothing") or ended["state"] not in ("succeeded", "stopped")
