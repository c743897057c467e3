"""Running rounds, world after world, and telling how it went."""

import tempfile
import time
from collections import Counter
from pathlib import Path

from crash.check import check
from crash.operation import operate
from crash.rest import bring_to_rest
from crash.world import World, WrongError

#: A long run begins another world after this number of rounds: rounds take longer the more agents a world has.
ROUNDS_A_WORLD = 25


def run(seed: str, rounds: int, folder: Path) -> str:
    """Run this number of rounds, in worlds under the folder. Return the figures as one line.

    Raises:
        WrongError: An invariant does not hold; its world's folder stays.
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
        print(told(seed, counts, time.monotonic() - began), flush=True)
    return told(seed, counts, time.monotonic() - began)


def _run_world(world: World, counts: Counter[str], rounds: int) -> None:
    for number in range(min(ROUNDS_A_WORLD, rounds - counts["rounds"])):
        run_round(world, number)
        counts["rounds"] += 1
        counts.update(world.take_counts())


def run_round(world: World, number: int) -> None:
    """Operations, rest, and the invariants.

    Raises:
        WrongError: One does not hold.
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


def told(seed: str, counts: Counter[str], seconds: float) -> str:
    """The figures in a line."""
    killed = ", ".join(f"{counts[what]} {what}" for what in ("daemons", "relays", "shims", "programs"))
    return (
        f"crash test, seed {seed}: {counts['rounds']} rounds in {seconds:.0f} s, {counts['agents']} agents, "
        f"{counts['calls']} calls, {counts['messages']} messages heard, {counts['merged']} branches merged; "
        f"killed: {killed}, "
        f"{counts['fallen']} daemons at fail points"
    )
