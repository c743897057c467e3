"""forkjoin daemon start, stop, status and logs."""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from forkjoin.cli.mcp_client import Client
from forkjoin.cli.person_only import require_person
from forkjoin.cli.safe_output import AsJson, print_answer, print_text
from forkjoin.core import daemon_log
from forkjoin.core.error import CallerError
from forkjoin.core.paths import find_home
from forkjoin.transport import daemon_connection

app = typer.Typer(
    help="The process that keeps the records and makes the decisions. It starts automatically when needed.",
    no_args_is_help=True,
)

_RUNNING = "the daemon is running (pid {}, version {})"
#: Seconds between two reads of `logs --follow`.
_FOLLOW_S = 0.3


@app.command()
def start() -> None:
    """Start the daemon, unless it is running."""
    with Client() as client:
        print_text(_RUNNING.format(client.daemon["pid"], client.daemon["version"]))


@app.command()
def status(json: AsJson = False) -> None:
    """Show whether the daemon is running. Exit code 1 if it is not."""
    if (found := daemon_connection.try_connect(find_home())) is None:
        print_answer({"up": False}, ["the daemon is not running; it starts when needed"], json=json)
        raise typer.Exit(1)
    found.close()
    with Client() as client:
        pid, version = client.daemon["pid"], client.daemon["version"]
    print_answer({"up": True, "pid": pid, "version": version}, [_RUNNING.format(pid, version)], json=json)


@app.command()
def stop(
    agents: Annotated[bool, typer.Option("--agents", help="Stop every agent first.")] = False,
    now: Annotated[
        bool, typer.Option("--now", help="End the daemon without asking it, e.g. if it hangs. Agents go on.")
    ] = False,
) -> None:
    """Stop the daemon.

    Refused while agents are under way, unless --agents stops them first.
    """
    require_person("stop the daemon")
    if agents and now:
        raise CallerError("--agents asks the daemon to stop agents, --now asks it nothing. Give only one of the two")
    if (found := daemon_connection.try_connect(find_home())) is None:
        print_text("the daemon is not running")
        return
    with found:
        try:
            if now:
                daemon_connection.end_daemon(found)
            else:
                with Client() as client:
                    _stop_agents(client, agents=agents)
                    client.end_daemon()
        except daemon_connection.RefusedError:  # e.g. by a daemon of another version; ending it harms no agent
            daemon_connection.end_daemon(found)
    print_text("the daemon has ended")


def _stop_agents(client: Client, *, agents: bool) -> None:
    """Stop all agents that are under way, in every repository.

    The status is read repeatedly, since it lists only the first of many agents.

    Raises:
        CallerError: Agents are under way, and `agents` is not set.
    """
    stopped: set[str] = set()
    while rest := {
        project: left
        for project, ids in client.call("get_status")["projects"].items()
        if (left := [agent_id for agent_id in ids if agent_id not in stopped])
    }:
        if not agents:
            ids = [agent_id for several in rest.values() for agent_id in several]
            raise CallerError(
                f"agents are under way ({', '.join(ids[:10])}). Stop these agents first, or pass --agents"
            )
        for project, ids in rest.items():
            with Client(project) as in_project:
                in_project.call("stop_agents", ids=ids)
            stopped.update(ids)


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until ^C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Show only this many last lines.")] = 100,
    json: AsJson = False,
) -> None:
    """Show the daemon's log, with the agent, merge or connection of each line.

    Works without the daemon.
    """
    require_person("read the daemon's log")
    path = find_home().log
    if not path.exists():
        print_text(f"there is no log yet: {path}")
        return
    past: deque[str] = deque(maxlen=lines)
    older = path.with_name(f"{path.name}.1")
    if older.exists():
        past.extend(older.read_text("utf-8", "replace").splitlines())
    with path.open(encoding="utf-8", errors="replace") as file:
        past.extend(file.read().splitlines())
        for line in past:
            print_text(line if json else daemon_log.format_entry(line))
        for line in _follow_log(file, path) if follow else ():
            print_text(line if json else daemon_log.format_entry(line))


def _follow_log(file: TextIO, path: Path) -> Iterator[str]:
    """Wait for new lines of the daemon's log, and yield each.

    The new log is followed when the log is rotated.
    """
    line = ""
    while True:
        line += file.readline()
        if line.endswith("\n"):
            yield line.rstrip("\n")
            line = ""
        elif path.exists() and not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            file = path.open(encoding="utf-8", errors="replace")
        else:
            time.sleep(_FOLLOW_S)
