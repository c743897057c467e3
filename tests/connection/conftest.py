"""What tests of connections share."""

from collections.abc import Iterator

import pytest
from fakes.daemon import FakeDaemon
from forkjoin.paths import Home


@pytest.fixture
def fake(home: Home) -> Iterator[FakeDaemon]:
    """A daemon that says what the test wants."""
    found = FakeDaemon(home)
    yield found
    found.close()
