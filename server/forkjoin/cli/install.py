"""forkjoin install and uninstall: the registration with Claude Code."""

import shutil
import subprocess
from typing import Annotated, Literal

import typer

from forkjoin.cli.person_only import require_person
from forkjoin.cli.safe_output import ask_yes_no, print_json, print_text
from forkjoin.core.error import CallerError
from forkjoin.transport.daemon_connection import relay_command

_RELAY = relay_command()

Scope = Annotated[
    Literal["user", "project", "local"], typer.Option(help="The scope of the registration, as in `claude mcp add`.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def install(scope: Scope = "user", yes: Yes = False) -> None:
    """Register forkjoin with Claude Code.

    Prints also the configuration for other clients.
    """
    _show_and_run(["claude", "mcp", "add", "--scope", scope, "forkjoin", "--", *_RELAY], yes=yes)
    print_text("Configuration for other clients:")
    print_json({"mcpServers": {"forkjoin": {"type": "stdio", "command": _RELAY[0], "args": [*_RELAY[1:]]}}})


def uninstall(scope: Scope = "user", yes: Yes = False) -> None:
    """Remove forkjoin from Claude Code. Agents, worktrees and records stay."""
    _show_and_run(["claude", "mcp", "remove", "--scope", scope, "forkjoin"], yes=yes)


def _show_and_run(argv: list[str], *, yes: bool) -> None:
    """Print a command, and run it if the person agrees."""
    import shlex

    require_person("change how forkjoin is registered")
    print_text(shlex.join(argv))
    if shutil.which(argv[0]) is None:
        print_text("claude is not in PATH. Run this command where it is.", err=True)
    elif not yes and not ask_yes_no("Run it?", default=True):
        print_text("Not run.", err=True)
    elif code := subprocess.run(argv, check=False).returncode:
        raise CallerError(f"claude failed with exit code {code}, as printed above{_hint_at_older_registration(argv)}")


def _hint_at_older_registration(argv: list[str]) -> str:
    """Return what to do if an older registration exists."""
    return ". If forkjoin is registered already, run forkjoin uninstall first" if "add" in argv else ""
