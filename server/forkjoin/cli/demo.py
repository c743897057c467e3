"""forkjoin demo."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from forkjoin.error import CallerError


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    agent: Annotated[str, typer.Option(help="scripted (needs no account) or claude.")] = "scripted",
) -> None:
    """Watch five agents work on a sample repository, and their branches being merged, through the real MCP server."""
    if agent not in ("scripted", "claude"):
        raise CallerError(f"--agent {agent}: the demo knows scripted and claude")
    from forkjoin.demo.play import play

    play(Path(tempfile.mkdtemp(prefix="forkjoin-demo-")), agent)
