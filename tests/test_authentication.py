"""Authentication of connections."""

from pathlib import Path
from typing import NoReturn

import anyio
import pytest
from forkjoin import authentication
from forkjoin.authentication import authenticate
from forkjoin.core.session import Hello, Session
from forkjoin.reconciler import Reconciler
from forkjoin.version import PROTOCOL, __version__
from support.harness import GIVE_UP_S


async def hang(_: Path) -> NoReturn:
    await anyio.sleep_forever()
    raise AssertionError


async def test_a_person_can_connect_although_git_is_slow_in_their_repository(
    in_process_reconciler: Reconciler, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "read_checkout", hang)
    monkeypatch.setattr(authentication, "_REGISTER_S", 0.1)
    hello = Hello(protocol=PROTOCOL, version=__version__, kind="cli", relay="x", cwd=str(repository))
    session = Session(hello)
    with anyio.fail_after(GIVE_UP_S):
        await authenticate(in_process_reconciler.services, session)
    assert session.is_person
