"""Agents' programs that speak as claude does, of two accounts, and a loop that runs them in this process."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Loop
from support.fakes import claude
from support.harness import Lead, lead_of, limit, open_lead_in_memory, open_loop_in_memory

CONFIG = """
[agents.talker]
kind = "claude"
command = ["{python}", "{script}"]
[agents.other]
kind = "claude"
command = ["{python}", "{script}"]
environment = {{ ANTHROPIC_API_KEY = "another" }}
"""


@pytest.fixture
def talkers(home: Home) -> None:
    """`talker` and `other`: their tasks are Python (fakes/claude.py)."""
    limit(home, max_running=8)
    home.config_file.write_text(
        home.config_file.read_text() + CONFIG.format(python=sys.executable, script=claude.__file__)
    )


@pytest.fixture
def hurried(home: Home) -> None:
    """Rests of a moment between attempts."""
    limit(home, rest_s=0.01)


@pytest.fixture
def unhurried(home: Home) -> None:
    """Rests that do not end within a test."""
    limit(home, rest_s=1000)


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


@pytest.fixture
async def loop(talkers: None, home: Home) -> AsyncIterator[Loop]:
    async with open_loop_in_memory(home) as loop:
        yield loop


@pytest.fixture
async def talking(loop: Loop, repository: Path) -> AsyncIterator[Lead]:
    """A lead of that loop."""
    async with lead_of(loop, repository) as lead:
        yield lead
