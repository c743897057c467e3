"""The demo: a lead that speaks MCP to the real relay, and a table of its agents."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import TextContent
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from forkjoin.cli import formatting
from forkjoin.core.error import CallerError
from forkjoin.demo.sample_repository import TASKS, VERIFY, make_repository

#: Seconds between two updates of the table.
_UPDATE_S = 0.25
_FORKJOIN = (sys.executable, "-P", "-E", "-m", "forkjoin")


def play(folder: Path, agent: str) -> None:
    """Run the demo in an empty folder.

    The folder stays, so that its content can be inspected. ^C removes it.
    """
    home, repository = folder / "home", folder / "calc"
    out = formatting.console()
    try:
        home.mkdir(mode=0o700)
        repository.mkdir()
        (home / "config.toml").write_text(_config(agent))
        make_repository(repository)
        out.print(f"A sample repository is in [bold]{repository}[/]. Five agents ({agent}) get a task each:\n")
        anyio.run(_play, home, repository, out)
    except KeyboardInterrupt:
        _remove_demo(folder, home)
        raise
    _print_next_steps(home, repository, out)


def _remove_demo(folder: Path, home: Path) -> None:
    """End the demo's agents and daemon, and remove its folder.

    Another ^C is ignored meanwhile.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment = {**os.environ, "FORKJOIN_HOME": str(home)}
    argv = [*_FORKJOIN, "daemon", "stop", "--agents"]
    subprocess.run(argv, env=environment, check=False, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


def _config(agent: str) -> str:
    command = json.dumps([sys.executable, "-m", "forkjoin.demo.scripted_agent"])
    scripted = f'[agents.scripted]\nkind = "command"\ncommand = {command}\n'
    return f'default_agent = "{agent}"\n[limits]\nmax_running = 3\nmax_load = 1000\nidle_minutes = 5\n{scripted}'


async def _play(home: Path, repository: Path, out: Console) -> None:
    environment = {**os.environ, "FORKJOIN_HOME": str(home), "CLAUDE_PROJECT_DIR": str(repository)}
    relay = StdioServerParameters(
        command=_FORKJOIN[0], args=[*_FORKJOIN[1:], "mcp"], env=environment, cwd=str(repository)
    )
    async with Client(stdio_client(relay)) as lead:
        agents = [{"name": task.name, "task": task.text} for task in TASKS]
        await _call_tool(lead, "spawn_agents", agents=agents, verify=VERIFY)
        ended = await _watch(lead, out)
        out.print("\nThey have ended. Now their branches are tested together and merged:\n")
        merged = await _call_tool(lead, "merge_worktree", ids=[one["id"] for one in ended], verify=VERIFY)
        out.print(
            formatting.make_table(
                ("id", "name", "state", "on main?", "why"), [_outcome_row(one, merged) for one in ended]
            )
        )


async def _call_tool(lead: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool and return its result.

    Raises:
        CallerError: The tool returned an error.
    """
    result = await lead.call_tool(tool, arguments)
    if result.is_error:
        raise CallerError("".join(part.text for part in result.content if isinstance(part, TextContent)))
    return result.structured_content or {}


async def _watch(lead: Client, out: Console) -> list[dict[str, Any]]:
    """Show the agents until all have ended. Return their rows of wait_agents."""
    ids = [task.name for task in TASKS]
    with Live(console=out, auto_refresh=False) as live:
        while True:
            waited = await _call_tool(lead, "wait_agents", ids=ids, timeout_s=_UPDATE_S)
            rows = (await _call_tool(lead, "list_agents", ids=ids))["agents"]
            live.update(formatting.agents_table(rows, out.width), refresh=True)
            if not waited["pending"]:
                finished: list[dict[str, Any]] = waited["finished"]
                return finished


def _outcome_row(one: dict[str, Any], merged: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the last table: an agent's state, and the outcome of its merge."""
    for outcome in ("merged", "conflicted", "rejected", "skipped"):
        for entry in merged[outcome]:
            if entry["id"] == one["id"]:
                files = f"conflict in {', '.join(entry['files'])}" if "files" in entry else ""
                reason: str = files or entry.get("why") or one["summary"]
                return (
                    one["id"],
                    one["name"],
                    formatting.coloured(one["state"]),
                    formatting.coloured(outcome),
                    escape(reason),
                )
    raise AssertionError(f"the merge did not report {one['id']}")


def _print_next_steps(home: Path, repository: Path, out: Console) -> None:
    command = "forkjoin" if shutil.which("forkjoin") else str(Path(sys.executable).with_name("forkjoin"))
    quoted_repository, quoted_home, quoted_folder = (
        shlex.quote(str(path)) for path in (repository, home, repository.parent)
    )
    lines = (
        (f"cd {quoted_repository} && export FORKJOIN_HOME={quoted_home}", ""),
        ("git log --graph --oneline", "the merges on main"),
        (f"{command} ps", "the agents"),
        (f"{command} result power", "why one failed"),
        (f"{command} diff slogan", "a change that was left out"),
        (f"{command} logs multiply", "the log of one agent"),
        (f"{command} daemon stop && rm -r {quoted_folder}", "clean up"),
    )
    out.print("\nTo inspect the result:")
    for line, why in lines:
        out.print(f"  {line:<30}{why and f'  # {why}'}", markup=False, soft_wrap=True)
