"""The crash test's rounds, in one world after another, and the report about them."""

import tempfile
import time
from collections import Counter
from pathlib import Path

from crash.check import check
from crash.operation import operate
from crash.rest import bring_to_rest
from crash.world import World, WrongError

#: The number of rounds in a world. The more agents a world has, the longer a round takes.
ROUNDS_A_WORLD = 25


def run(seed: str, rounds: int, folder: Path) -> str:
    """Run this number of rounds, in worlds under the folder.

    Return the figures as one line.

    Raises:
        WrongError: An invariant does not hold. The folder of the world is kept.
    """
    counts: Counter[str] = Counter()
    began = time.monotonic()
    while counts["rounds"] < rounds:
        number = counts["rounds"] // ROUNDS_A_WORLD
        world = World(Path(tempfile.mkdtemp(prefix=f"{seed}-{number}-", dir=folder)), f"{seed}.{number}")
        try:
            _run_world(world, counts, rounds)
        finally:
            world.end()
        world.remove()
        print(_figures(seed, counts, time.monotonic() - began), flush=True)
    return _figures(seed, counts, time.monotonic() - began)


def _run_world(world: World, counts: Counter[str], rounds: int) -> None:
    for number in range(min(ROUNDS_A_WORLD, rounds - counts["rounds"])):
        run_round(world, number)
        counts["rounds"] += 1
        counts.update(world.take_counts())


def run_round(world: World, number: int) -> None:
    """Run operations, wait until the world is at rest, and check the invariants.

    Raises:
        WrongError: An invariant does not hold.
    """
    world.note(f"-- round {number}")
    try:
        operate(world)
        bring_to_rest(world)
        wrong = check(world)
    except Exception as error:
        raise WrongError(_report(world, number, [repr(error)])) from error
    if wrong:
        raise WrongError(_report(world, number, wrong))


def _report(world: World, number: int, wrong: list[str]) -> str:
    lines = "\n  ".join(wrong)
    world.note(f"wrong:\n  {lines}")
    return f"seed {world.seed}, round {number}; see {world.folder}/trace and home/daemon.log there:\n  {lines}"


def _figures(seed: str, counts: Counter[str], seconds: float) -> str:
    """Return the figures of a run as one line."""
    killed = ", ".join(f"{counts[kind]} {kind}" for kind in ("daemons", "relays", "shims", "programs"))
    return (
        f"crash test, seed {seed}: {counts['rounds']} rounds in {seconds:.0f} s, {counts['agents']} agents, "
        f"{counts['calls']} calls, {counts['messages']} messages received, {counts['merged']} branches merged; "
        f"killed: {killed}, "
        f"{counts['fallen']} daemons at fail points"
    )
