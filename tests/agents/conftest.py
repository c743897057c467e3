"""Agents' programs that speak as claude does, of two accounts, and a reconciler that runs them in this process."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from forkjoin.reconciler import Reconciler
from support.fakes import claude
from support.harness import Lead, lead_of, limit, open_lead_in_memory, open_reconciler_in_memory

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
async def reconciler(talkers: None, home: Home) -> AsyncIterator[Reconciler]:
    async with open_reconciler_in_memory(home) as reconciler:
        yield reconciler


@pytest.fixture
async def talking(reconciler: Reconciler, repository: Path) -> AsyncIterator[Lead]:
    """A lead of that reconciler."""
    async with lead_of(reconciler, repository) as lead:
        yield lead
