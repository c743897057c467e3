"""Shell commands that run for agents and merges."""

from dataclasses import replace
from pathlib import Path

import pytest
from forkjoin.core.error import is_transient
from forkjoin.process.executor import Executor
from forkjoin.workspace.shell_command import run_command
from support.attempts import change_shims, program


async def test_a_command_that_cant_start_for_lack_of_resources_runs_later(
    local: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none_left = tmp_path / "none left"
    none_left.touch()
    refuse = f"if os.path.exists({str(none_left)!r}): raise BlockingIOError(11, 'no process left')"
    change_shims(
        monkeypatch,
        tmp_path,
        f"import os; really = os.fork\ndef fork():\n    {refuse}\n    return really()\nos.fork = fork",
    )
    verify = program("a1-1-verify", "echo", "ran")
    with pytest.raises(OSError, match="verify could not be started: no process left") as refused:
        await run_command(local, verify)
    assert is_transient(refused.value)
    assert await local.list_handles() == []
    none_left.unlink()
    ran = await run_command(local, verify)
    assert (ran.outcome.kind, ran.printed) == ("exited", "ran")


async def test_a_command_that_cant_start_through_its_own_fault_has_failed(local: Executor) -> None:
    ran = await run_command(local, replace(program("a1-1-setup", "true"), cwd="/no/such/folder"))
    assert str(ran.outcome) == "could not be started: its folder /no/such/folder: No such file or directory"
