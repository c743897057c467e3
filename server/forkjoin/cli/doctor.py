"""forkjoin doctor and status: what is there, what is wrong, and what to do about it."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from forkjoin.cli.config_changes import find_fault
from forkjoin.cli.mcp_client import Client, call_tool
from forkjoin.cli.safe_output import AsJson, print_answer, print_json
from forkjoin.cli.trust import untrusted
from forkjoin.core.error import CallerError, ForkjoinError
from forkjoin.core.paths import Home, find_home
from forkjoin.core.settings import AgentProgram, Limits, Settings, read_settings
from forkjoin.git.git_version import OLDEST_GIT
from forkjoin.git.safe_options import safe_environment
from forkjoin.process import capacity, cgroup_root
from forkjoin.process.resource_limits import spell_bytes
from forkjoin.store.damaged_database import find_damage, find_trouble
from forkjoin.transport.daemon_connection import DaemonError, peer_of, try_connect

_VERSION_S = 20
#: What limits what, and what does where there is no such cgroup.
_TIERS = (
    ("memory", "memory", "the watchdog"),
    ("pids", "processes", "the watchdog"),
    ("cpu", "processors", "niceness alone"),
)

#: What of a status is told in lines, and as what.
_TOLD = {
    "waiting": "waiting",
    "budgets": "budget",
    "rate_limits": "rate limit",
    "merges": "merge",
    "conflicts": "conflict",
    "trouble": "trouble",
}


def status(json: AsJson = False) -> None:
    """What runs, what is queued, and why not more."""
    answer = call_tool("get_status")
    counts = (
        f"{answer[state]} {state}" for state in ("running", "paused", "queued") if answer[state] or state != "paused"
    )
    lines = [f"{', '.join(counts)}, at most {answer['max_running']} at once"]
    lines += [f"asked: {answer['requests']}; forkjoin requests tells them"] if answer["requests"] else []
    lines += [f"{project}: {', '.join(ids)}" for project, ids in answer["projects"].items()]
    lines += [f"{what}: {line}" for field, what in _TOLD.items() for line in answer[field]]
    print_answer(answer, lines, json=json)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `remedy` says what to do where it is not well."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def doctor(json: AsJson = False) -> None:
    """Look at git, the agent programs, the settings and the daemon. Exit code 1 if something must be done."""
    from forkjoin.cli import formatting

    findings = list(examine(find_home()))
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [
            (
                f.what,
                "[green]ok[/]" if f.ok else "[bold red]fault[/]",
                formatting.plain(f.found if f.ok else f"{f.found} → {f.remedy}"),
            )
            for f in findings
        ]
        formatting.console().print(formatting.table(("what", "", "found"), rows))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def examine(home: Home) -> Iterator[Finding]:
    """Everything that forkjoin needs, one after the other."""
    yield Finding("system", sys.platform == "linux", sys.platform, "only Linux is supported")
    yield _git()
    yield (folder := _folder(home))
    if folder.ok:
        yield from _records(home)
    try:
        settings = read_settings(home.config_file)
        yield Finding("settings", True, f"{home.config_file}{'' if home.config_file.exists() else ' (none: defaults)'}")
    except CallerError as error:
        settings = Settings()
        yield Finding("settings", False, str(error), "correct the file, then: forkjoin daemon stop")
    for name, program in settings.programs().items():
        yield _program(name, program, needed=name == settings.default_agent)
    daemon = _daemon_pid(home) or "self"
    bases = cgroup_root.find_bases(daemon)
    yield _limits(settings.on(capacity.find_memory(daemon)).limits, bases)
    escape = "none can be made: a process that clears its environment and outlives its shim escapes a stop"
    yield Finding("cgroup", True, "; ".join(map(str, bases)) or escape)
    yield _daemon(home)
    yield _repository()
    if folder.ok:
        yield from _trust(home)
        yield from _shared_config(home)


def _shared_config(home: Home) -> Iterator[Finding]:
    """What changed in the git configuration and hooks that the user's own git and all agents share."""
    with suppress(ForkjoinError):  # told by others
        if fault := find_fault(home):
            yield Finding("shared config", False, *fault)


def _trust(home: Home) -> Iterator[Finding]:
    """What in the repository here, if there is one, waits to be trusted, or can't be read."""
    try:
        strange = untrusted(home)
    except ForkjoinError as error:
        yield Finding("trust", False, str(error), "correct it: agents are refused here until then")
    else:
        if strange is not None:
            found = ", ".join(strange) or "nothing new wants to be executed"
            yield Finding("trust", not strange, found, "forkjoin trust")


def _ask(*argv: str) -> str | None:
    """The first line that a program prints; none if it can't be run or fails."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=_VERSION_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=safe_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout.splitlines() or [""])[0].strip() if done.returncode == 0 else None


def _git() -> Finding:
    found = _ask("git", "version")
    version = tuple(map(int, re.findall(r"\d+", found or "")[:2]))
    return Finding("git", version >= OLDEST_GIT, found or "not found", "install git 2.38 or newer")


def _folder(home: Home) -> Finding:
    try:
        home.make()
    except OSError as error:
        return Finding("home", False, str(error), "set FORKJOIN_HOME to a folder of your own")
    ok = os.access(home.state, os.W_OK)
    return Finding("home", ok, str(home.state), "make it writable, or set FORKJOIN_HOME")


def _records(home: Home) -> Iterator[Finding]:
    """Whether the database is sound, all of it, and its disk has room."""
    file = home.records
    try:
        damage = find_damage(file, thorough=True)
    except (sqlite3.Error, OSError) as error:
        damage = str(error)
    size = f"{file}, {file.stat().st_size // 1024} KB" if file.exists() else "none yet"
    remedy = "forkjoin daemon stop, then any command: it is set aside, and what can be read in it is taken over"
    yield Finding("records", damage is None, damage or size, remedy)
    for line in find_trouble(file):
        found, _, remedy = line.rpartition("; ")
        yield Finding("records", False, found, remedy)


def _program(name: str, program: AgentProgram, *, needed: bool) -> Finding:
    path = shutil.which(program.command[0])
    if path is None:
        remedy = "install it, or name its path under [agents] in config.toml"
        return Finding(f"agent {name}", not needed, f"{program.command[0]} is not in PATH", remedy)
    version = _ask(path, "--version") if program.kind == "claude" else None
    return Finding(f"agent {name}", True, f"{path}{f', {version}' if version else ''}")


def _limits(limits: Limits, bases: Sequence[cgroup_root.Base]) -> Finding:
    """How much there may be, and what sees to that."""
    most = f"max_running {limits.max_running or 'from cores and free memory'}"
    memory, processes = limits.per_agent.memory, limits.per_agent.processes
    each = f"an agent {spell_bytes(memory) if memory else 'any'} memory, {processes or 'any number of'} processes"
    held = [
        f"{what} by {next((f'cgroup v{base.version}' for base in bases if controller in base.controllers), otherwise)}"
        for controller, what, otherwise in _TIERS
    ]
    return Finding("limits", True, f"{most}; {each}; held: {', '.join(held)}")


def _daemon_pid(home: Home) -> str | None:
    """The daemon's pid, where one is up: its cgroup is what counts."""
    found = try_connect(home)
    if found is None:
        return None
    with found:
        return str(peer_of(found)[0])


def _daemon(home: Home) -> Finding:
    found = try_connect(home)
    if found is None:
        return Finding("daemon", True, "not up; it starts when it is needed")
    found.close()
    try:
        with Client() as client:
            return Finding("daemon", True, f"up, pid {client.daemon['pid']}, version {client.daemon['version']}")
    except (DaemonError, CallerError) as error:
        return Finding("daemon", False, str(error), "see forkjoin daemon logs")


def _repository() -> Finding:
    top = _ask("git", "rev-parse", "--show-toplevel") or _ask("git", "rev-parse", "--absolute-git-dir")  # a bare one
    if top is None:
        return Finding("repository", True, f"none around {Path.cwd()}; start your lead in one")
    head = _ask("git", "rev-parse", "--verify", "--quiet", "HEAD")
    return Finding("repository", head is not None, top if head else f"{top} has no commit", "commit something first")
