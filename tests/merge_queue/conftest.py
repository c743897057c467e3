"""Where landers are forked from."""

import pytest
from support.merges import start_forkserver


@pytest.fixture(scope="session", autouse=True)
def processes() -> None:
    start_forkserver()
