"""The command line. Every command calls the tools that the lead calls, over the same socket.

It ends in one of four ways: 0; 1, the person can put it right; 130, ^C; 3, our fault, with a report to paste.
"""

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from forkjoin.cli import (
    agents,
    attach,
    budget,
    daemon,
    doctor,
    install,
    merge,
    requests,
    results,
    session_summary,
    trust,
    wait,
)
from forkjoin.cli.safe_output import print_text
from forkjoin.core.error import CallerError, is_passing
from forkjoin.core.paths import find_home
from forkjoin.transport.daemon_connection import DaemonError
from forkjoin.version import __version__

app = typer.Typer(
    help="Fork work out to many coding agents at once, each in its own git worktree, and join what they did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    *(agents.spawn, agents.ps, results.logs, wait.wait, results.result, results.diff, agents.message, attach.attach),
    *(agents.stop, agents.rm, merge.merge, merge.undo, requests.requests, requests.answer),
    *(
        doctor.status,
        doctor.doctor,
        trust.trust,
        budget.budget,
        install.install,
        install.uninstall,
        session_summary.brief,
    ),
):
    app.command()(command)
app.add_typer(daemon.app, name="daemon")


@app.callback(invoke_without_command=True)
def main(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(f"forkjoin {__version__}")
        raise typer.Exit


@app.command()
def demo(agent: Annotated[str, typer.Option(help="scripted (needs no account) or claude.")] = "scripted") -> None:
    """Watch five agents work on a sample repository, and their branches being merged, through the real MCP server."""
    if agent not in ("scripted", "claude"):
        raise CallerError(f"--agent {agent}: the demo knows scripted and claude")
    from forkjoin.demo.demo import play

    play(Path(tempfile.mkdtemp(prefix="forkjoin-demo-")), agent)


@app.command(help="Be the MCP server on stdin and stdout, as Claude Code starts it.")
def mcp() -> None:
    # Only reached with arguments: `forkjoin mcp` alone is the relay, which imports nothing of this.
    raise CallerError("forkjoin mcp takes no arguments")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; its exit code."""
    given = None if arguments is None else list(arguments)
    try:
        result: Any = app(args=given, prog_name="forkjoin", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # the boundary to the person
        return _end(_innermost(error))
    return result if isinstance(result, int) else 0


def _innermost(error: BaseException) -> BaseException:
    """What a group that holds one exception alone is about."""
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _innermost(inside[0]) if len(inside) == 1 else error


def _end(error: BaseException) -> int:
    """Say what ended a command; its exit code."""
    match error:
        case CallerError() | DaemonError() | PermissionError():
            print_text(f"forkjoin: {error}", err=True)
            return 1
        case KeyboardInterrupt() | typer.Abort():
            sys.stderr.write("\n")
            return 130
        case BrokenPipeError():
            _drop_output()
            return 0  # whoever read our output has had enough
        case OSError() if error.filename or is_passing(error):  # a home that can't be, a disk that is full
            _drop_output()
            print_text(f"forkjoin: {error}", err=True)
            return 1
        case SystemExit():
            return error.code if isinstance(error.code, int) else 0
        case _ if (code := _usage_error(error)) is not None:
            return code
        case _:
            _report(error)
            return 3


def _drop_output() -> None:
    """Let what could not be printed go: Python would try again at its end, and say so."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _usage_error(error: BaseException) -> int | None:
    """The exit code of a wrong command line, which is shown; none if it was something else."""
    show = getattr(error, "show", None)
    if show is None:
        return None
    show()
    return int(getattr(error, "exit_code", 2))


def _report(error: BaseException) -> None:
    """What went wrong with us, laid out to be pasted into an issue."""
    lines = [
        f"forkjoin: this is a fault of forkjoin's own: {type(error).__name__}: {error}",
        f"forkjoin {__version__}, Python {platform.python_version()}, {platform.platform()}; log: {find_home().log}",
        "".join(traceback.format_exception(error)),
    ]
    print_text("\n".join(lines), err=True)
