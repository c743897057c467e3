"""Registering forkjoin with Claude Code, by its own command, and what other clients are given."""

import shutil
import subprocess
from typing import Annotated, Literal

import typer

from forkjoin.cli.person_only import require_person
from forkjoin.cli.safe_output import ask_yes_no, print_json, print_text
from forkjoin.core.error import CallerError
from forkjoin.transport.daemon_connection import relay_command

_RELAY = relay_command()

Scope = Annotated[Literal["user", "project", "local"], typer.Option(help="For whom: as `claude mcp add` has it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def install(scope: Scope = "user", yes: Yes = False) -> None:
    """Register forkjoin with Claude Code, by a command that is shown first; and tell what other clients need."""
    _run(["claude", "mcp", "add", "--scope", scope, "forkjoin", "--", *_RELAY], yes=yes)
    print_text("Other clients take this:")
    print_json({"mcpServers": {"forkjoin": {"type": "stdio", "command": _RELAY[0], "args": [*_RELAY[1:]]}}})


def uninstall(scope: Scope = "user", yes: Yes = False) -> None:
    """Take forkjoin out of Claude Code again. Agents, worktrees and records stay."""
    _run(["claude", "mcp", "remove", "--scope", scope, "forkjoin"], yes=yes)


def _run(argv: list[str], *, yes: bool) -> None:
    """Run this, once it was shown and the person ask_yes_no."""
    import shlex

    require_person("change how forkjoin is registered")
    print_text(shlex.join(argv))
    if shutil.which(argv[0]) is None:
        print_text("There is no claude in PATH: run this where there is one.", err=True)
    elif not yes and not ask_yes_no("Run it?", default=True):
        print_text("Not run.", err=True)
    elif code := subprocess.run(argv, check=False).returncode:
        raise CallerError(f"claude did not do that (exit {code}); what it said stands above{_hint(argv)}")


def _hint(argv: list[str]) -> str:
    """What to do where an older registration is in the way."""
    return ". Where there is one already: forkjoin uninstall, then again" if "add" in argv else ""
