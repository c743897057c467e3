"""Fixtures for tests of connections."""

from collections.abc import Iterator

import pytest
from forkjoin.core.paths import Home
from support.fakes.daemon import FakeDaemon


@pytest.fixture
def fake(home: Home) -> Iterator[FakeDaemon]:
    """Yield a fake daemon with scripted answers."""
    found = FakeDaemon(home)
    yield found
    found.close()
