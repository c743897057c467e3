"""`python -m crash --rounds N --seed S`, in `tests/`: the crash test for as long as you like."""

import argparse
import random
import tempfile
from pathlib import Path

from crash.run import run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m crash", description="Kill at random, and see that nothing is lost."
    )
    parser.add_argument("--rounds", type=int, default=40, help="how many rounds (40)")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="what a failure names: drawn if not given")
    parser.add_argument("--folder", type=Path, help="where worlds are made: the system's own for temporary files")
    given = parser.parse_args()
    print(f"crash test, seed {given.seed}", flush=True)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="forkjoin-crash-"))
    print(run(given.seed, given.rounds, folder), flush=True)
    if given.folder is None:
        folder.rmdir()


if __name__ == "__main__":
    main()
