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
    help="The one process that keeps the records and decides; it starts by itself when it is needed.",
    no_args_is_help=True,
)

_UP = "the daemon is up (pid {}, version {})"
_LOOK_EVERY_S = 0.3


@app.command()
def start() -> None:
    """Start the daemon, if it is not there."""
    with Client() as client:
        print_text(_UP.format(client.daemon["pid"], client.daemon["version"]))


@app.command()
def status(json: AsJson = False) -> None:
    """Whether the daemon is up. Exit code 1 if it is not."""
    if (found := daemon_connection.try_connect(find_home())) is None:
        print_answer({"up": False}, ["the daemon is not up; it starts when it is needed"], json=json)
        raise typer.Exit(1)
    found.close()
    with Client() as client:
        pid, version = client.daemon["pid"], client.daemon["version"]
    print_answer({"up": True, "pid": pid, "version": version}, [_UP.format(pid, version)], json=json)


@app.command()
def stop(
    agents: Annotated[bool, typer.Option("--agents", help="Stop every agent first.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Ask nothing, as of one that hangs; agents go on.")] = False,
) -> None:
    """Stop the daemon. Refused while agents are under way, unless --agents stops them first."""
    require_person("stop the daemon")
    if agents and now:
        raise CallerError("--agents asks the daemon to stop them, --now asks it nothing: give one of the two")
    if (found := daemon_connection.try_connect(find_home())) is None:
        print_text("the daemon is not up")
        return
    with found:
        try:
            if now:
                daemon_connection.end_daemon(found)
            else:
                with Client() as client:
                    _stop_agents(client, agents=agents)
                    client.end_daemon()
        except (
            daemon_connection.RefusedError
        ):  # of another version: it is ended without a question, which harms no agent
            daemon_connection.end_daemon(found)
    print_text("the daemon has left")


def _stop_agents(client: Client, *, agents: bool) -> None:
    """Stop all that is under way; a status names so many at once, and what can't be stopped is asked once."""
    asked: set[str] = set()
    while rest := {
        project: left
        for project, ids in client.call("get_status")["projects"].items()
        if (left := [one for one in ids if one not in asked])
    }:
        if not agents:
            ids = [one for several in rest.values() for one in several]
            raise CallerError(f"agents are under way ({', '.join(ids[:10])}); stop them first, or pass --agents")
        for project, ids in rest.items():
            with Client(project) as in_project:
                in_project.call("stop_agents", ids=ids)
            asked.update(ids)


@app.command()
def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, until ^C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Only the last ones, so many.")] = 100,
    json: AsJson = False,
) -> None:
    """Show what the daemon did and what troubled it, by agent, landing and connection; also when it is not up."""
    require_person("read the daemon's log")
    path = find_home().log
    if not path.exists():
        print_text(f"there is no log yet ({path})")
        return
    past: deque[str] = deque(maxlen=lines)
    older = path.with_name(f"{path.name}.1")
    if older.exists():
        past.extend(older.read_text("utf-8", "replace").splitlines())
    with path.open(encoding="utf-8", errors="replace") as file:
        past.extend(file.read().splitlines())
        for line in past:
            print_text(line if json else daemon_log.show(line))
        for line in _coming(file, path) if follow else ():
            print_text(line if json else daemon_log.show(line))


def _coming(file: TextIO, path: Path) -> Iterator[str]:
    """The lines to come, also once the log was begun anew."""
    line = ""
    while True:
        line += file.readline()
        if line.endswith("\n"):
            yield line.rstrip("\n")
            line = ""
        elif path.exists() and not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            file = path.open(encoding="utf-8", errors="replace")
        else:
            time.sleep(_LOOK_EVERY_S)
