"""Running histories, one after another, and telling what went wrong, so that it can be played again alone."""

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
from adversary.ground import Ground
from adversary.plan import Plan, plan_of
from adversary.play import Played, play
from adversary.standing import Shared, look
from adversary.states import DONE, MADE

#: Within this all that was started must be gone.
_GONE_S = 20.0
#: After so long without activity a git that only reads is ended here: many histories have one that waits at a pipe.
_IDLE_S = 5.0


class WrongError(AssertionError):
    """An invariant does not hold."""


def run_history(plan: Plan, folder: Path) -> list[str]:
    """Play a history in a folder, which stays if anything is wrong; what is."""
    ground = Ground(folder)
    (folder / "trace").write_text(f"{plan}\n")
    with ground.inhabited(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(git_process, "_IDLE_TIMEOUT_S", _IDLE_S)
        try:
            wrong = _play_and_check(plan, ground)
        except Exception as error:
            lines = traceback.format_exception(error)
            wrong = [f"the adversary's own: {''.join(lines)[-1500:]}"]
        finally:
            left = _left(ground)
    wrong += left
    with (folder / "trace").open("a") as trace:
        trace.writelines(f"wrong: {one}\n" for one in wrong)
    if not wrong:
        ground.remove()
    return wrong


def _play_and_check(plan: Plan, ground: Ground) -> list[str]:
    ground.make(ground.other)
    for name in plan.states:
        (MADE.get(name) or DONE[name])(ground)
    played, before, shared = Played(ground, plan), look(ground), Shared(ground)
    try:
        anyio.run(play, plan, ground, played)
    except Exception as error:
        played.wrong.append(f"the reconciler: {_told(error)}")
    return played.wrong if played.hung else check(ground, played, before, shared)


def _told(error: BaseException) -> str:
    inside = getattr(error, "exceptions", ())
    return "; ".join(map(_told, inside)) if inside else f"{type(error).__name__}: {error}"


def _left(ground: Ground) -> list[str]:
    """End what is still there, which must be nothing but a daemon that an agent's shim has started at its end."""
    give_up = time.monotonic() + _GONE_S
    while left := processes_of(ground.home):
        if time.monotonic() > give_up:
            subprocess.run(["kill", "-9", *map(str, left)], check=False)
            return [f"processes: still running: {left}"]
        if file_lock.is_held(ground.home / "daemon.lock"):
            subprocess.run(
                [sys.executable, "-m", "forkjoin", "daemon", "stop", "--agents"], capture_output=True, check=False
            )
        time.sleep(0.02)
    return []


def run(seed: str, numbers: range, folder: Path) -> str:
    """Play histories of a seed; the figures.

    Raises:
        WrongError: Something was wrong in some of them, whose folders stay.
    """
    began, failed = time.monotonic(), list[str]()
    for number in numbers:
        plan = plan_of(seed, number)
        if wrong := run_history(plan, folder / f"{seed}-{number}"):
            lines = "\n    ".join(one[:600] for one in wrong)
            failed.append(f"seed {seed}, history {number}: {plan}\n    {lines}")
            print(failed[-1], flush=True)
    told = f"adversary, seed {seed}: {len(numbers)} histories in {time.monotonic() - began:.0f} s"
    if failed:
        raise WrongError(f"{told}, {len(failed)} of them wrong; see {folder}/*/trace\n" + "\n".join(failed))
    return f"{told}, all invariants held"
