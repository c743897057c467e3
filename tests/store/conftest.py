"""A store with one project."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from forkjoin.store.store import Store, open_store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await open_store(tmp_path / "records.sqlite")
    await found.projects.get_or_add("/repository/.git")
    yield found
    await found.close()
