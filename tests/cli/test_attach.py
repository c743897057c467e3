"""forkjoin attach, on a pseudo-terminal."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import psutil
import pytest
from forkjoin.core.paths import Home
from forkjoin.transport import daemon_connection
from support.fakes import claude
from support.harness import Lead, first_answer, forkjoin, kill_daemon, until
from support.terminal import Terminal, open_terminal

TALKER = f'[agents.talker]\nkind = "claude"\ncommand = ["{sys.executable}", "{claude.__file__}"]\n'
#: A task whose turn goes on until the agent is resumed.
TASK = "answer('up')\nif not resumed:\n    hear()\nsucceed(told)"


@pytest.fixture
async def agent(home: Home, lead: Lead) -> str:
    """Return the id of an agent in the middle of its turn."""
    (agent,) = await lead.spawn(TASK, agent="talker")
    await lead.until(agent, last_event="up")
    return agent


@pytest.fixture
def home(home: Home) -> Home:
    home.config_file.write_text(home.config_file.read_text() + TALKER)
    return home


@contextmanager
def attached(where: Path, *arguments: str, prompt: str = "person>") -> Generator[Terminal]:
    argv = (sys.executable, "-m", "forkjoin", "attach", *arguments)
    with open_terminal(where, *argv, prompt=prompt) as terminal:
        yield terminal


async def test_an_attached_person_is_in_the_agents_conversation_and_worktree_and_it_goes_on_afterwards(
    agent: str, lead: Lead, repository: Path, tmp_path: Path
) -> None:
    with attached(repository, agent) as terminal:
        await terminal.type("import os; open('x.txt', 'w').write(os.environ['FORKJOIN_AGENT'])")
        await terminal.type("sys.exit(3)")
        await until(lambda: terminal.process.poll() is not None)
    assert terminal.process.returncode == 3
    (result,) = await lead.results(agent)
    assert (result["state"], result["files_changed"], result["insertions"]) == ("succeeded", 1, 1)


async def test_an_interrupt_reaches_the_attached_program(agent: str, lead: Lead, repository: Path) -> None:
    with attached(repository, agent) as terminal:
        await terminal.type("import signal; signal.signal(2, lambda *_: print('interrupted ' * 2))")
        await terminal.type("print('set ' * 2)")
        await until(lambda: b"set set" in terminal.printed)
        terminal.interrupt()
        await until(lambda: b"interrupted interrupted" in terminal.printed)
        await terminal.type("sys.exit()")
        await until(lambda: terminal.process.poll() is not None)
    assert terminal.process.returncode == 0
    (result,) = await lead.results(agent)
    assert result["state"] == "succeeded"


async def test_an_interrupt_ends_attach_if_its_program_has_ended(
    agent: str, home: Home, lead: Lead, repository: Path
) -> None:
    with attached(repository, agent) as terminal:
        await until(lambda: b"person>" in terminal.printed)
        command = psutil.Process(terminal.process.pid)
        connection = daemon_connection.try_connect(home)
        assert connection
        with connection:
            daemon = psutil.Process(daemon_connection.peer_of(connection)[0])
        daemon.suspend()
        try:
            await first_answer(lambda: waits(command))
            await terminal.type("sys.exit()")
            await until(lambda: {child.status() for child in command.children()} == {psutil.STATUS_ZOMBIE})
            terminal.interrupt()
            await until(lambda: terminal.process.poll() is not None)
        finally:
            daemon.resume()
    assert terminal.process.returncode == 130
    (result,) = await lead.results(agent)
    assert result["state"] == "succeeded"


async def waits(command: psutil.Process) -> bool:
    """Return whether the command waits for the daemon's answer.

    While it waits for its program it wakes up every second.
    """
    before = command.num_ctx_switches()
    await anyio.sleep(1)
    return command.num_ctx_switches() == before


async def test_when_the_attach_command_is_killed_its_program_ends_and_the_agent_goes_on(
    agent: str, lead: Lead, repository: Path
) -> None:
    shell = (
        "sh",
        "-c",
        f"{sys.executable} -m forkjoin attach {agent}; sleep 1000",
    )  # the shell keeps the terminal open
    with open_terminal(repository, *shell, prompt="person>") as terminal:
        await until(lambda: b"person>" in terminal.printed)
        assert (await lead.listed(agent))["state"] == "paused"
        (command,) = psutil.Process(terminal.process.pid).children()
        (program,) = command.children()
        command.kill()
        await until(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE)
        (result,) = await lead.results(agent)
    assert result["state"] == "succeeded"


async def test_a_restart_of_the_daemon_ends_the_conversation_and_the_agent_goes_on(
    agent: str, home: Home, lead: Lead, repository: Path
) -> None:
    with attached(repository, agent) as terminal:
        await until(lambda: b"person>" in terminal.printed)
        kill_daemon(repository, home)
        await until(lambda: terminal.process.poll() is not None)
    assert b"The daemon was restarted" in terminal.printed
    (result,) = await lead.results(agent)
    assert result["state"] == "succeeded"


async def test_attach_survives_daemon_errors_and_reports_a_signal_as_a_shell_does(
    agent: str, lead: Lead, home: Home, repository: Path
) -> None:
    with attached(repository, agent) as terminal:
        await until(lambda: b"person>" in terminal.printed)
        settings = home.config_file.read_text()
        home.config_file.write_text("[")
        kill_daemon(repository, home)
        await until(lambda: home.log.read_bytes().count(b"config.toml") > 2)
        await terminal.type("import os; os.kill(os.getpid(), 9)")
        await until(lambda: terminal.process.poll() is not None)
        home.config_file.write_text(settings)
    assert terminal.process.returncode == 128 + 9
    assert b"The connection to the daemon was lost" in terminal.printed


def test_attach_without_a_terminal_is_refused(home: Home, repository: Path) -> None:
    refused = forkjoin(repository, "attach", "a1", check=False)
    assert refused.returncode == 1
    assert "needs a person at a terminal" in refused.stderr


@pytest.mark.parametrize("variable", ["FORKJOIN_TOKEN", "CLAUDECODE"])
async def test_attach_by_a_program_is_refused_even_on_a_terminal(
    repository: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with attached(repository, "a1", "--tmux") as terminal:
        await until(lambda: b"needs a person at a terminal" in terminal.printed)


async def test_a_tmux_window_stays_open_when_attach_is_refused(
    home: Home, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmux := tmp_path / "tmux").write_text(f'#!/bin/sh\nprintf "%s " "$@" > {tmp_path}/asked\nshift 3\nexec "$@"\n')
    tmux.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMUX", "x")
    with attached(repository, "a1", "--tmux", prompt="Enter closes this window.") as terminal:
        await terminal.type(" ")
        await until(lambda: terminal.process.poll() is not None)
    assert b"agent" in terminal.printed.partition(b"Enter closes")[0]
    assert (tmp_path / "asked").read_text().startswith(f"new-window -eFORKJOIN_HOME={home.state} -- sh -c ")
