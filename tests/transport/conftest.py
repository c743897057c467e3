"""What tests of connections share."""

from collections.abc import Iterator

import pytest
from forkjoin.core.paths import Home
from support.fakes.daemon import FakeDaemon


@pytest.fixture
def fake(home: Home) -> Iterator[FakeDaemon]:
    """A daemon that says what the test wants."""
    found = FakeDaemon(home)
    yield found
    found.close()
