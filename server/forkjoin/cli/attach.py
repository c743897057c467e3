"""forkjoin attach: a person continues an agent's conversation in the agent's own program and worktree."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import termios
from functools import partial
from typing import Annotated, Any

import typer

from forkjoin.cli.mcp_client import Client
from forkjoin.cli.results import Id
from forkjoin.cli.safe_output import print_text
from forkjoin.core.error import CallerError
from forkjoin.transport.daemon_connection import DaemonError

#: Seconds between two calls that keep the connection in use.
_RESERVE_S = 1.0
_INTERRUPTED = "The daemon was restarted, which ended this conversation. Run forkjoin attach again to continue it."
_PR_SET_PDEATHSIG = 1
#: Variables that mark a caller as a program instead of a person.
_PROGRAM_VARIABLES = ("FORKJOIN_TOKEN", "CLAUDECODE")
#: Runs a command. If it fails, its window stays open until Enter, so that the error can be read.
_KEEP_OPEN = '"$@" || { printf "Enter closes this window. "; read -r _; }'
#: Variables that belong to the terminal instead of the agent.
_TERMINAL_VARIABLES = (
    "TERM",
    "COLORTERM",
    "TERM_PROGRAM",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMUX",
    "TMUX_PANE",
    "DISPLAY",
)


def attach(
    id: Id,  # noqa: A002
    tmux: Annotated[bool, typer.Option("--tmux", help="Open a tmux window.")] = False,
) -> None:
    """Continue an agent's conversation yourself.

    Its program pauses until you leave, then goes on.
    """
    if not sys.stdin.isatty() or not os.environ.keys().isdisjoint(_PROGRAM_VARIABLES):
        raise CallerError("attach needs a person at a terminal. To tell an agent something, use message_agent")
    if tmux:
        return _open_window(id)
    with Client() as client:
        print_text(f"{id}: pausing its program …", err=True)
        going = client.call("attach", id=id)
        code = _run_program(client, going)
    print_text(f"{going['id']}  {going['name']}  detached. See forkjoin ps for how it goes on", err=True)
    if code:
        raise typer.Exit(code)
    return None


def _open_window(agent: str) -> None:
    """Run the command in a window of the current tmux session, or of a new one."""
    if not (tmux := shutil.which("tmux")):
        raise CallerError("tmux is not in PATH. Leave --tmux out to use this terminal")
    ours = [f"-eFORKJOIN_HOME={home}"] if (home := os.environ.get("FORKJOIN_HOME")) else []
    where = "new-window" if os.environ.get("TMUX") else "new-session"  # a folder in -c would be expanded: #(command)
    command = ["sh", "-c", _KEEP_OPEN, "sh", sys.executable, "-P", "-E", "-m", "forkjoin", "attach", "--", agent]
    if subprocess.run([tmux, where, *ours, "--", *command], check=False).returncode:
        raise CallerError("tmux failed. Leave --tmux out to use this terminal")


def _run_program(client: Client, going: dict[str, Any]) -> int:
    """Run the agent's program on this terminal. Return its exit code."""
    modes = termios.tcgetattr(sys.stdin)
    environment = {
        **going["environment"],
        **{name: os.environ[name] for name in _TERMINAL_VARIABLES if name in os.environ},
    }
    signal.signal(signal.SIGINT, _ignore_interrupt)
    program = subprocess.Popen(
        going["argv"],
        cwd=going["worktree"],
        env=environment,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    signal.signal(signal.SIGINT, partial(_interrupt, program))
    daemon, trouble = client.daemon, ""
    try:
        while (code := _poll_exit_code(program)) is None:
            try:
                client.call("list_agents", ids=[going["id"]])
                trouble = "" if client.daemon is daemon else _INTERRUPTED
            except (CallerError, DaemonError, OSError) as error:  # the person may go on
                trouble = (
                    f"forkjoin lost the reservation, so the agent's own program may have run at the same time: {error}"
                )
    finally:
        program.terminate()
        program.wait()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)
        if trouble:
            print_text(trouble, err=True)
    return code if code >= 0 else 128 - code


def _ignore_interrupt(_: int, __: object) -> None:
    """Leave ^C to the program. Programs inherit an ignored signal, but not a handler."""


def _interrupt(program: "subprocess.Popen[bytes]", *_: object) -> None:
    """Raise KeyboardInterrupt if the program has ended.

    The command may then be waiting for a daemon.
    """
    if program.poll() is not None:
        raise KeyboardInterrupt


def _poll_exit_code(program: "subprocess.Popen[bytes]") -> int | None:
    """Wait a second for the program. Return its exit code, or `None` if it still runs."""
    try:
        return program.wait(_RESERVE_S)
    except subprocess.TimeoutExpired:
        return None


def _end_with_parent() -> None:
    """Let the kernel end the program with this process, even if that is killed.

    Then the agent goes on.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
