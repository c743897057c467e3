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

#: Seconds between two calls by which the command notices that the daemon has ended.
_CALL_INTERVAL_S = 1.0
_INTERRUPTED = "The daemon was restarted, which ended this conversation. Run forkjoin attach again to continue it."
_PR_SET_PDEATHSIG = 1
#: Variables that are set in processes of agents and of Claude Code. A person's terminal has neither.
_PROGRAM_VARIABLES = ("FORKJOIN_TOKEN", "CLAUDECODE")
#: A shell script that runs the command in its arguments. If the command fails, the window stays open until Enter is
#: pressed, so that the error can be read.
_KEEP_OPEN = '"$@" || { printf "Enter closes this window. "; read -r _; }'
#: Variables that the agent's program gets from the person's terminal instead of the agent's environment.
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
        attached = client.call("attach", id=id)
        code = _run_program(client, attached)
    print_text(f"{attached['id']}  {attached['name']}  detached. See forkjoin ps for how it goes on", err=True)
    if code:
        raise typer.Exit(code)
    return None


def _open_window(agent: str) -> None:
    """Run `forkjoin attach` in a new tmux window or session.

    Raises:
        CallerError: tmux is not installed, or failed.
    """
    if not (tmux := shutil.which("tmux")):
        raise CallerError("tmux is not in PATH. Leave --tmux out to use this terminal")
    variables = [f"-eFORKJOIN_HOME={home}"] if (home := os.environ.get("FORKJOIN_HOME")) else []
    # No -c with the working directory: tmux runs a command that a folder's name contains, as in `#(command)`.
    where = "new-window" if os.environ.get("TMUX") else "new-session"
    command = ["sh", "-c", _KEEP_OPEN, "sh", sys.executable, "-P", "-E", "-m", "forkjoin", "attach", "--", agent]
    if subprocess.run([tmux, where, *variables, "--", *command], check=False).returncode:
        raise CallerError("tmux failed. Leave --tmux out to use this terminal")


def _run_program(client: Client, attached: dict[str, Any]) -> int:
    """Run the agent's program on this terminal.

    Return its exit code, 128 plus the signal if one ended it.

    Args:
        attached: The result of the tool `attach`.
    """
    modes = termios.tcgetattr(sys.stdin)
    environment = {
        **attached["environment"],
        **{name: os.environ[name] for name in _TERMINAL_VARIABLES if name in os.environ},
    }
    signal.signal(signal.SIGINT, _ignore_interrupt)
    program = subprocess.Popen(attached["argv"], cwd=attached["worktree"], env=environment, preexec_fn=_end_with_parent)
    signal.signal(signal.SIGINT, partial(_interrupt, program))
    daemon, trouble = client.daemon, ""
    try:
        while (code := _poll_exit_code(program)) is None:
            try:
                client.call("list_agents", ids=[attached["id"]])
                trouble = "" if client.daemon is daemon else _INTERRUPTED
            except (CallerError, DaemonError, OSError) as error:  # must not end the person's conversation
                trouble = (
                    "The connection to the daemon was lost, so the agent may have been started again while you were "
                    f"attached: {error}"
                )
    finally:
        program.terminate()
        program.wait()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)
        if trouble:
            print_text(trouble, err=True)
    return code if code >= 0 else 128 - code


def _ignore_interrupt(_: int, __: object) -> None:
    """Ignore ^C, which the program handles itself.

    With SIG_IGN the program would inherit that ^C is ignored.
    """


def _interrupt(program: "subprocess.Popen[bytes]", *_: object) -> None:
    """Raise KeyboardInterrupt if the program has ended.

    Then ^C ends a command that waits for a daemon.
    """
    if program.poll() is not None:
        raise KeyboardInterrupt


def _poll_exit_code(program: "subprocess.Popen[bytes]") -> int | None:
    """Wait at most `_CALL_INTERVAL_S` for the program.

    Return its exit code, or `None` if it still runs.
    """
    try:
        return program.wait(_CALL_INTERVAL_S)
    except subprocess.TimeoutExpired:
        return None


def _end_with_parent() -> None:
    """Let the kernel send this process SIGHUP when its parent ends, even if killed.

    Runs in the program's process before the program starts. See PR_SET_PDEATHSIG in prctl(2).
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
