"""`python -m adversary --histories N --seed S`, in `tests/`: as many histories as you like, or one alone."""

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

from adversary.plan import Plan
from adversary.run import WrongError, run, run_history


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m adversary", description="Draw hostile and odd histories, and see that every invariant holds."
    )
    parser.add_argument("--histories", type=int, default=100, help="how many (100)")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="what a failure names: drawn if not given")
    parser.add_argument("--only", type=int, help="play this history of the seed alone")
    parser.add_argument("--plan", help="play this plan, as a failure names it")
    parser.add_argument("--folder", type=Path, help="where histories are played: the system's own for temporary files")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended, too
    folder = given.folder or Path(tempfile.mkdtemp(prefix="forkjoin-adversary-"))
    folder.mkdir(parents=True, exist_ok=True)
    if given.plan:
        wrong = run_history(Plan.parse(given.plan), folder / "plan")
        print("\n".join(wrong) or "all invariants held", f"(in {folder})" if wrong else "")
        return bool(wrong)
    print(f"adversary, seed {given.seed}", flush=True)
    numbers = range(given.only, given.only + 1) if given.only is not None else range(given.histories)
    try:
        print(run(given.seed, numbers, folder), flush=True)
    except WrongError as error:
        print(str(error).partition("\n")[0])
        return 1
    if given.folder is None:
        folder.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
