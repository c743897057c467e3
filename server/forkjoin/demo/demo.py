"""Playing the demo: a lead that speaks MCP to the real relay, and a table that shows what its agents do."""

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

_LOOK_EVERY_S = 0.25
_FORKJOIN = (sys.executable, "-P", "-E", "-m", "forkjoin")


def play(folder: Path, agent: str) -> None:
    """Play the demo in an empty folder, and leave there what can be looked at afterwards; nothing once interrupted."""
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
        _clear(folder, home)
        raise
    _explain(home, repository, out)


def _clear(folder: Path, home: Path) -> None:
    """End the demo's agents and daemon, and take away its folder; another ^C must not keep us from it."""
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
        await _call(lead, "spawn_agents", agents=agents, verify=VERIFY)
        ended = await _watch(lead, out)
        out.print("\nThey have ended. Now their branches are joined, and tested together first:\n")
        landed = await _call(lead, "merge_worktree", ids=[one["id"] for one in ended], verify=VERIFY)
        out.print(formatting.table(("id", "name", "state", "on main?", "why"), [_row(one, landed) for one in ended]))


async def _call(lead: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool answers.

    Raises:
        CallerError: It refused.
    """
    result = await lead.call_tool(tool, arguments)
    if result.is_error:
        raise CallerError("".join(part.text for part in result.content if isinstance(part, TextContent)))
    return result.structured_content or {}


async def _watch(lead: Client, out: Console) -> list[dict[str, Any]]:
    """Show the agents until all have ended; how they did."""
    ids = [task.name for task in TASKS]
    with Live(console=out, auto_refresh=False) as live:
        while True:
            waited = await _call(lead, "wait_agents", ids=ids, timeout_s=_LOOK_EVERY_S)
            rows = (await _call(lead, "list_agents", ids=ids))["agents"]
            live.update(formatting.agents_table(rows, out.width), refresh=True)
            if not waited["pending"]:
                finished: list[dict[str, Any]] = waited["finished"]
                return finished


def _row(one: dict[str, Any], landed: dict[str, Any]) -> tuple[str, ...]:
    """A line of the last table: how an agent ended, and how its branch fared."""
    for fate in ("merged", "conflicted", "rejected", "skipped"):
        for entry in landed[fate]:
            if entry["id"] == one["id"]:
                files = f"conflict in {', '.join(entry['files'])}" if "files" in entry else ""
                words: str = files or entry.get("why") or one["summary"]
                return (
                    one["id"],
                    one["name"],
                    formatting.coloured(one["state"]),
                    formatting.coloured(fate),
                    escape(words),
                )
    raise AssertionError(f"the merge said nothing of {one['id']}")


def _explain(home: Path, repository: Path, out: Console) -> None:
    command = "forkjoin" if shutil.which("forkjoin") else str(Path(sys.executable).with_name("forkjoin"))
    there, kept, all_ = (shlex.quote(str(path)) for path in (repository, home, repository.parent))
    lines = (
        (f"cd {there} && export FORKJOIN_HOME={kept}", ""),
        ("git log --graph --oneline", "what landed on main"),
        (f"{command} ps", "the agents"),
        (f"{command} result power", "why one failed"),
        (f"{command} diff slogan", "what was left out"),
        (f"{command} logs multiply", "what one said"),
        (f"{command} daemon stop && rm -r {all_}", "when you have seen enough"),
    )
    out.print("\nTo look closer:")
    for line, why in lines:
        out.print(f"  {line:<30}{why and f'  # {why}'}", markup=False, soft_wrap=True)
