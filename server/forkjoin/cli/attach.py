"""forkjoin attach: a person goes on with an agent's conversation, in its own program and worktree."""

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
_HOLD_EVERY_S = 1.0
_INTERRUPTED = "The daemon was restarted, which ended this conversation. Run forkjoin attach again to continue it."
_PR_SET_PDEATHSIG = 1
#: In whose environment one of these is, is a program, and no person.
_MARKS_OF_PROGRAMS = ("FORKJOIN_TOKEN", "CLAUDECODE")
#: Runs a command; where it fails, its window stays until Enter, so that its words can be read.
_KEEP_OPEN = '"$@" || { printf "Enter closes this window. "; read -r _; }'
#: What belongs to the terminal, not to the agent.
_TERMINAL = ("TERM", "COLORTERM", "TERM_PROGRAM", "LANG", "LC_ALL", "LC_CTYPE", "TMUX", "TMUX_PANE", "DISPLAY")


def attach(
    id: Id,  # noqa: A002
    tmux: Annotated[bool, typer.Option("--tmux", help="In a window of tmux.")] = False,
) -> None:
    """Go on with an agent's conversation yourself; its program rests until you leave, and then goes on."""
    if not sys.stdin.isatty() or not os.environ.keys().isdisjoint(_MARKS_OF_PROGRAMS):
        raise CallerError("attach is for a person at a terminal; message_agent tells an agent something")
    if tmux:
        return _open_window(id)
    with Client() as client:
        print_text(f"{id}: its program is asked to rest …", err=True)
        going = client.call("attach", id=id)
        code = _converse(client, going)
    print_text(f"{going['id']}  {going['name']}  left; forkjoin ps tells how it goes on", err=True)
    if code:
        raise typer.Exit(code)
    return None


def _open_window(agent: str) -> None:
    """Do the same in a window of the tmux that this is in, else of a new one."""
    if not (tmux := shutil.which("tmux")):
        raise CallerError("tmux is not in PATH; without --tmux it takes this terminal")
    ours = [f"-eFORKJOIN_HOME={home}"] if (home := os.environ.get("FORKJOIN_HOME")) else []
    where = "new-window" if os.environ.get("TMUX") else "new-session"  # here: of a -c it would expand #(command)
    command = ["sh", "-c", _KEEP_OPEN, "sh", sys.executable, "-P", "-E", "-m", "forkjoin", "attach", "--", agent]
    if subprocess.run([tmux, where, *ours, "--", *command], check=False).returncode:
        raise CallerError("tmux would not; without --tmux it takes this terminal")


def _converse(client: Client, going: dict[str, Any]) -> int:
    """Run the agent's program on this terminal, to its end; its exit code."""
    modes = termios.tcgetattr(sys.stdin)
    environment = {**going["environment"], **{name: os.environ[name] for name in _TERMINAL if name in os.environ}}
    signal.signal(signal.SIGINT, _let_pass)
    program = subprocess.Popen(
        going["argv"],
        cwd=going["worktree"],
        env=environment,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    signal.signal(signal.SIGINT, partial(_interrupt, program))
    daemon, trouble = client.daemon, ""
    try:
        while (code := _ended(program)) is None:
            try:
                client.call("list_agents", ids=[going["id"]])
                trouble = "" if client.daemon is daemon else _INTERRUPTED
            except (CallerError, DaemonError, OSError) as error:  # no reason to end what they are in the midst of
                trouble = f"forkjoin has lost hold of it, and it may have gone on beside you: {error}"
    finally:
        program.terminate()
        program.wait()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)
        if trouble:
            print_text(trouble, err=True)
    return code if code >= 0 else 128 - code


def _let_pass(_: int, __: object) -> None:
    """^C is for the program, which would inherit that it is ignored, but no handler."""


def _interrupt(program: "subprocess.Popen[bytes]", *_: object) -> None:
    """Where the program has ended, ^C is for us, who may be waiting for a daemon.

    Raises:
        KeyboardInterrupt: It has ended.
    """
    if program.poll() is not None:
        raise KeyboardInterrupt


def _ended(program: "subprocess.Popen[bytes]") -> int | None:
    """Its exit code, if it ends now."""
    try:
        return program.wait(_HOLD_EVERY_S)
    except subprocess.TimeoutExpired:
        return None


def _end_with_parent() -> None:
    """Let the program not outlive us, even where we are killed: the agent goes on then."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
