"""forkjoin daemon start, stop and status."""

import os
import signal
import time
from typing import Annotated

import typer

from forkjoin import lock
from forkjoin.cli.client import Client
from forkjoin.connection import start as reach
from forkjoin.error import CallerError
from forkjoin.paths import find_home

app = typer.Typer(
    help="The one process that keeps the records and decides; it starts by itself when it is needed.",
    no_args_is_help=True,
)


_LEAVE_S = 30


@app.command()
def start() -> None:
    """Start the daemon, if it is not there."""
    with Client(find_home()) as client:
        typer.echo(f"the daemon is up (pid {client.daemon['pid']}, version {client.daemon['version']})")


@app.command()
def status() -> None:
    """Whether the daemon is up. Exit code 1 if it is not."""
    home = find_home()
    if (found := reach.try_connect(home)) is None:
        typer.echo("the daemon is not up; it starts when it is needed")
        raise typer.Exit(1)
    found.close()
    start()


@app.command()
def stop(
    agents: Annotated[bool, typer.Option("--agents", help="Stop every agent first.")] = False,
) -> None:
    """Stop the daemon. Refused while agents are under way, unless --agents stops them first."""
    home = find_home()
    if (found := reach.try_connect(home)) is None:
        typer.echo("the daemon is not up")
        return
    found.close()
    with Client(home) as client:
        live: dict[str, list[str]] = client.call("get_status")["projects"]
        if live and not agents:
            ids = [one for several in live.values() for one in several]
            raise CallerError(f"agents are under way ({', '.join(ids[:10])}); stop them first, or pass --agents")
        for project, ids in live.items():
            with Client(home, project) as in_project:
                in_project.call("stop_agents", ids=ids)
        os.kill(client.daemon["pid"], signal.SIGTERM)
    give_up = time.monotonic() + _LEAVE_S
    while lock.is_held(home.daemon_lock):
        if time.monotonic() > give_up:
            raise CallerError(
                f"the daemon (pid {client.daemon['pid']}) did not leave within {_LEAVE_S} s; see {home.log}"
            )
        time.sleep(0.02)
    typer.echo("the daemon has left")
