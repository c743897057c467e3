"""The command line: the list of its commands, and the exit codes of errors.

Exit codes: 0 success, 1 an error that the person can correct, 2 a wrong command line, 3 a bug of forkjoin's, 130 after
^C.
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
from forkjoin.core.error import CallerError, is_transient
from forkjoin.core.paths import find_home
from forkjoin.transport.daemon_connection import DaemonError
from forkjoin.version import __version__

app = typer.Typer(
    help="Run many coding agents at once, each in its own git worktree, and merge their work.",
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
    ),
):
    app.command()(command)
app.command("brief")(session_summary.print_session_summary)
app.add_typer(daemon.app, name="daemon")


@app.callback(invoke_without_command=True)
def main(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        typer.echo(f"forkjoin {__version__}")
        raise typer.Exit


@app.command()
def demo(agent: Annotated[str, typer.Option(help="scripted (needs no account), or claude.")] = "scripted") -> None:
    """Watch five agents work on a sample repository, and the merge of their branches."""
    if agent not in ("scripted", "claude"):
        raise CallerError(f"--agent {agent} is unknown. Use scripted or claude")
    from forkjoin.demo.demo import play

    play(Path(tempfile.mkdtemp(prefix="forkjoin-demo-")), agent)


@app.command(help="Run the MCP server on stdin and stdout. Claude Code starts it.")
def mcp() -> None:
    # Reached only with arguments. `forkjoin mcp` alone runs the relay, which does not import this module.
    raise CallerError("forkjoin mcp takes no arguments. Call it without any")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    given = None if arguments is None else list(arguments)
    try:
        result: Any = app(args=given, prog_name="forkjoin", standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:  # the boundary to the person
        return _report_error(_innermost(error))
    return result if isinstance(result, int) else 0


def _innermost(error: BaseException) -> BaseException:
    """Return the exception, or the only one inside nested exception groups."""
    inside: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _innermost(inside[0]) if len(inside) == 1 else error


def _report_error(error: BaseException) -> int:
    """Print why a command ended, for a bug with a traceback. Return the exit code."""
    match error:
        case CallerError() | DaemonError() | PermissionError():
            print_text(f"forkjoin: {error}", err=True)
            return 1
        case KeyboardInterrupt() | typer.Abort():
            sys.stderr.write("\n")
            return 130
        case BrokenPipeError():
            _drop_output()
            return 0  # the program that reads the output, e.g. head, has read enough
        case OSError() if error.filename or is_transient(error):  # e.g. a home that can't be created, or a full disk
            _drop_output()
            print_text(f"forkjoin: {error}", err=True)
            return 1
        case SystemExit():
            return error.code if isinstance(error.code, int) else 0
        case _ if (code := _usage_error(error)) is not None:
            return code
        case _:
            _report_bug(error)
            return 3


def _drop_output() -> None:
    """Redirect stdout to /dev/null, since Python prints buffered output at exit."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _usage_error(error: BaseException) -> int | None:
    """Print the error and return its exit code if the command line is wrong.

    Return `None` for any other error.
    """
    show = getattr(error, "show", None)
    if show is None:
        return None
    show()
    return int(getattr(error, "exit_code", 2))


def _report_bug(error: BaseException) -> None:
    """Print what a person should report about a bug of forkjoin's."""
    lines = [
        f"forkjoin: this is a bug in forkjoin. Please report it: {type(error).__name__}: {error}",
        f"forkjoin {__version__}, Python {platform.python_version()}, {platform.platform()}; log: {find_home().log}",
        "".join(traceback.format_exception(error)),
    ]
    print_text("\n".join(lines), err=True)
