"""The fork server for processes that run merge jobs, and a lead whose agents leave only branches and records."""

from collections.abc import Iterator

import pytest
from support.harness import Lead
from support.merges import start_forkserver
from support.quick_agents import quick_agents


@pytest.fixture(scope="session", autouse=True)
def processes() -> None:
    start_forkserver()


@pytest.fixture
def quick_lead(near_lead: Lead, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lead]:
    """A lead of the reconciler in this process.

    Most of its agents have no processes, see `quick_agents`.
    """
    with quick_agents(monkeypatch):
        yield near_lead
