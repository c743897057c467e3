"""The version of the installed git."""

from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.git.git_version import require_version
from support.branches import put_git


async def test_an_old_git_is_refused_with_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_git(tmp_path / "bin", monkeypatch, "echo git version 2.30.2; exit")
    with pytest.raises(CallerError, match=r"git 2\.30\.2 is too old: forkjoin needs 2\.38"):
        await require_version()


async def test_a_missing_git_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CallerError, match="git was not found"):
        await require_version()
