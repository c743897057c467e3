"""The fork server for processes that run merge jobs."""

import pytest
from support.merges import start_forkserver


@pytest.fixture(scope="session", autouse=True)
def processes() -> None:
    start_forkserver()
