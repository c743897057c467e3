"""The command line of the crash test: `python -m crash --rounds N --seed S`, in `tests/`."""

import argparse
import random
import tempfile
from pathlib import Path

from crash.run import run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m crash", description="Kill processes of forkjoin at random, and check that nothing is lost."
    )
    parser.add_argument("--rounds", type=int, default=40, help="the number of rounds (40)")
    seed = str(random.randrange(10**6))
    parser.add_argument("--seed", default=seed, help="the seed, as a failure prints it (random)")
    parser.add_argument("--folder", type=Path, help="the folder for worlds (a temporary folder)")
    given = parser.parse_args()
    print(f"crash test, seed {given.seed}", flush=True)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="forkjoin-crash-"))
    print(run(given.seed, given.rounds, folder), flush=True)
    if given.folder is None:
        folder.rmdir()


if __name__ == "__main__":
    main()
