"""Where landers are forked from."""

import pytest
from landings import start_forkserver


@pytest.fixture(scope="session", autouse=True)
def processes() -> None:
    start_forkserver()
