"""Running histories one after another, and reporting each failure with the plan that reproduces it."""

import subprocess
import sys
import time
import traceback
from pathlib import Path

import anyio
import pytest
from conftest import processes_of
from forkjoin.core import file_lock
from forkjoin.git import git_process

from adversary.check import check
from adversary.plan import Plan, plan_of
from adversary.play import Played, play
from adversary.repository_kinds import MADE
from adversary.sandbox import Sandbox
from adversary.snapshot import Shared, take_snapshot
from adversary.states import DONE

#: Seconds within which all processes of a history must end.
_GONE_S = 20.0
#: Seconds without activity after which forkjoin ends a git command. Short, since many histories block git at a pipe.
_IDLE_S = 5.0


class WrongError(AssertionError):
    """An invariant does not hold."""


def run_history(plan: Plan, folder: Path) -> list[str]:
    """Play a history in a folder.

    Return a sentence for each violation; keep the folder if there is any.
    """
    sandbox = Sandbox(folder)
    (folder / "trace").write_text(f"{plan}\n")
    with sandbox.inhabited(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(git_process, "_IDLE_TIMEOUT_S", _IDLE_S)
        try:
            wrong = _play_and_check(plan, sandbox)
        except Exception as error:
            lines = traceback.format_exception(error)
            wrong = [f"the adversary test itself failed: {''.join(lines)[-1500:]}"]
        finally:
            left = _end_processes(sandbox)
    wrong += left
    with (folder / "trace").open("a") as trace:
        trace.writelines(f"wrong: {one}\n" for one in wrong)
    if not wrong:
        sandbox.remove()
    return wrong


def _play_and_check(plan: Plan, sandbox: Sandbox) -> list[str]:
    sandbox.make(sandbox.other)
    for name in plan.states:
        (MADE.get(name) or DONE[name])(sandbox)
    played, before, shared = Played(sandbox, plan), take_snapshot(sandbox), Shared(sandbox)
    try:
        anyio.run(play, plan, sandbox, played)
    except Exception as error:
        played.wrong.append(f"the reconciler: {_describe(error)}")
    return played.wrong if played.hung else check(sandbox, played, before, shared)


def _describe(error: BaseException) -> str:
    inside = getattr(error, "exceptions", ())
    return "; ".join(map(_describe, inside)) if inside else f"{type(error).__name__}: {error}"


def _end_processes(sandbox: Sandbox) -> list[str]:
    """End the processes of a history.

    Only a daemon that an agent's shim has started at its end may still run.
    """
    give_up = time.monotonic() + _GONE_S
    while left := processes_of(sandbox.home):
        if time.monotonic() > give_up:
            subprocess.run(["kill", "-9", *map(str, left)], check=False)
            return [f"processes: still running: {left}"]
        if file_lock.is_held(sandbox.home / "daemon.lock"):
            subprocess.run(
                [sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents"], capture_output=True, check=False
            )
        time.sleep(0.02)
    return []


def run(seed: str, numbers: range, folder: Path) -> str:
    """Play the seed's histories with these numbers. Return the figures as one line.

    Raises:
        WrongError: An invariant did not hold in some histories. Their folders are kept.
    """
    began, failed = time.monotonic(), list[str]()
    for number in numbers:
        plan = plan_of(seed, number)
        if wrong := run_history(plan, folder / f"{seed}-{number}"):
            lines = "\n    ".join(one[:600] for one in wrong)
            failed.append(f"seed {seed}, history {number}: {plan}\n    {lines}")
            print(failed[-1], flush=True)
    figures = f"adversary, seed {seed}: {len(numbers)} histories in {time.monotonic() - began:.0f} s"
    if failed:
        raise WrongError(f"{figures}, {len(failed)} failed; see {folder}/*/trace\n" + "\n".join(failed))
    return f"{figures}, all invariants held"
