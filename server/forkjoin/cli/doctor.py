"""forkjoin status and doctor."""

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
from forkjoin.cli.trust import find_untrusted
from forkjoin.core.error import CallerError, ForkjoinError
from forkjoin.core.paths import Home, find_home
from forkjoin.core.settings import AgentProgram, Limits, Settings, read_settings
from forkjoin.git.git_version import OLDEST_GIT
from forkjoin.git.safe_options import safe_environment
from forkjoin.process import capacity, cgroup_root
from forkjoin.process.resource_limits import format_bytes
from forkjoin.store.damage_detection import find_damage, find_trouble
from forkjoin.transport.daemon_connection import DaemonError, peer_of, try_connect

#: Seconds that a program may take to print its version.
_VERSION_S = 20
#: A cgroup controller, what it limits, and what limits it without a cgroup.
_LIMITERS = (
    ("memory", "memory", "the watchdog"),
    ("pids", "processes", "the watchdog"),
    ("cpu", "processors", "niceness alone"),
)

#: Fields of a status that are printed line by line, with their labels.
_LABELS = {
    "waiting": "waiting",
    "budgets": "budget",
    "rate_limits": "rate limit",
    "merges": "merge",
    "conflicts": "conflict",
    "trouble": "trouble",
}


def status(json: AsJson = False) -> None:
    """Show running, paused and queued agents, and why no more run."""
    answer = call_tool("get_status")
    counts = (
        f"{answer[state]} {state}" for state in ("running", "paused", "queued") if answer[state] or state != "paused"
    )
    lines = [f"{', '.join(counts)}, at most {answer['max_running']} at once"]
    lines += [f"open requests: {answer['requests']}; see forkjoin requests"] if answer["requests"] else []
    lines += [f"{project}: {', '.join(ids)}" for project, ids in answer["projects"].items()]
    lines += [f"{what}: {line}" for field, what in _LABELS.items() for line in answer[field]]
    print_answer(answer, lines, json=json)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `remedy` says what to do if it is not ok."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def doctor(json: AsJson = False) -> None:
    """Check git, the agent programs, the settings and the daemon.

    Exit code 1 if something must be done.
    """
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
        formatting.console().print(formatting.make_table(("what", "", "found"), rows))
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def examine(home: Home) -> Iterator[CheckResult]:
    """Check everything that forkjoin needs."""
    yield CheckResult("system", sys.platform == "linux", sys.platform, "only Linux is supported")
    yield _check_git()
    yield (folder := _check_home(home))
    if folder.ok:
        yield from _check_records(home)
    try:
        settings = read_settings(home.config_file)
        yield CheckResult(
            "settings", True, f"{home.config_file}{'' if home.config_file.exists() else ' (missing: defaults)'}"
        )
    except CallerError as error:
        settings = Settings()
        yield CheckResult("settings", False, str(error), "correct the file, then run: forkjoin daemon stop")
    for name, program in settings.programs().items():
        yield _check_agent_program(name, program, needed=name == settings.default_agent)
    daemon = _daemon_pid(home) or "self"
    bases = cgroup_root.find_cgroup_roots(daemon)
    yield _check_limits(settings.on(capacity.find_memory(daemon)).limits, bases)
    escape = "not available: a process that clears its environment and outlives its shim is not found by a stop"
    yield CheckResult("cgroup", True, "; ".join(map(str, bases)) or escape)
    yield _check_daemon(home)
    yield _check_repository()
    if folder.ok:
        yield from _check_trust(home)
        yield from _check_shared_config(home)


def _check_shared_config(home: Home) -> Iterator[CheckResult]:
    """Check the git configuration and hooks that the user and all agents share."""
    with suppress(ForkjoinError):  # other checks report it
        if fault := find_fault(home):
            yield CheckResult("shared config", False, *fault)


def _check_trust(home: Home) -> Iterator[CheckResult]:
    """Check whether the current repository has anything that needs trust."""
    try:
        new = find_untrusted(home)
    except ForkjoinError as error:
        yield CheckResult("trust", False, str(error), "correct it: no agent can be spawned here until then")
    else:
        if new is not None:
            found = ", ".join(new) or "nothing new to execute"
            yield CheckResult("trust", not new, found, "forkjoin trust")


def _first_line(*argv: str) -> str | None:
    """Return the first line that a program prints, or `None` if it fails."""
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


def _check_git() -> CheckResult:
    found = _first_line("git", "version")
    version = tuple(map(int, re.findall(r"\d+", found or "")[:2]))
    return CheckResult("git", version >= OLDEST_GIT, found or "not found", "install git 2.38 or newer")


def _check_home(home: Home) -> CheckResult:
    try:
        home.make()
    except OSError as error:
        return CheckResult("home", False, str(error), "set FORKJOIN_HOME to a folder of your own")
    ok = os.access(home.state, os.W_OK)
    return CheckResult("home", ok, str(home.state), "make it writable, or set FORKJOIN_HOME")


def _check_records(home: Home) -> Iterator[CheckResult]:
    """Check the whole database for damage, and its disk for space."""
    file = home.records
    try:
        damage = find_damage(file, thorough=True)
    except (sqlite3.Error, OSError) as error:
        damage = str(error)
    size = f"{file}, {file.stat().st_size // 1024} KB" if file.exists() else "does not exist yet"
    remedy = (
        "run forkjoin daemon stop, then any command: the damaged file is kept, and its readable records are recovered"
    )
    yield CheckResult("records", damage is None, damage or size, remedy)
    for line in find_trouble(file):
        found, _, remedy = line.rpartition("; ")
        yield CheckResult("records", False, found, remedy)


def _check_agent_program(name: str, program: AgentProgram, *, needed: bool) -> CheckResult:
    path = shutil.which(program.command[0])
    if path is None:
        remedy = "install it, or set its path under [agents] in config.toml"
        return CheckResult(f"agent {name}", not needed, f"{program.command[0]} is not in PATH", remedy)
    version = _first_line(path, "--version") if program.kind == "claude" else None
    return CheckResult(f"agent {name}", True, f"{path}{f', {version}' if version else ''}")


def _check_limits(limits: Limits, bases: Sequence[cgroup_root.CgroupRoot]) -> CheckResult:
    """Report the limits, and what enforces them."""
    most = f"max_running {limits.max_running or 'from cores and free memory'}"
    memory, processes = limits.per_agent.memory, limits.per_agent.processes
    each = f"per agent {format_bytes(memory) if memory else 'any'} memory, {processes or 'any number of'} processes"
    held = [
        f"{what} by {next((f'cgroup v{base.version}' for base in bases if controller in base.controllers), otherwise)}"
        for controller, what, otherwise in _LIMITERS
    ]
    return CheckResult("limits", True, f"{most}; {each}; enforced: {', '.join(held)}")


def _daemon_pid(home: Home) -> str | None:
    """Return the daemon's pid, whose cgroup counts, or `None` if it isn't running."""
    found = try_connect(home)
    if found is None:
        return None
    with found:
        return str(peer_of(found)[0])


def _check_daemon(home: Home) -> CheckResult:
    found = try_connect(home)
    if found is None:
        return CheckResult("daemon", True, "not running; it starts when needed")
    found.close()
    try:
        with Client() as client:
            return CheckResult(
                "daemon", True, f"running, pid {client.daemon['pid']}, version {client.daemon['version']}"
            )
    except (DaemonError, CallerError) as error:
        return CheckResult("daemon", False, str(error), "see forkjoin daemon logs")


def _check_repository() -> CheckResult:
    top = _first_line("git", "rev-parse", "--show-toplevel") or _first_line(
        "git", "rev-parse", "--absolute-git-dir"
    )  # for a bare repository
    if top is None:
        return CheckResult("repository", True, f"{Path.cwd()} is in no repository; start your lead in one")
    head = _first_line("git", "rev-parse", "--verify", "--quiet", "HEAD")
    return CheckResult(
        "repository", head is not None, top if head else f"{top} has no commit", "commit something first"
    )
