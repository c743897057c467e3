"""The command line of the adversary test: `python -m adversary --histories N --seed S`, in `tests/`."""

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
        prog="python -m adversary", description="Play random hostile histories, and check the invariants after each."
    )
    parser.add_argument("--histories", type=int, default=100, help="the number of histories (100)")
    seed = str(random.randrange(10**6))
    parser.add_argument("--seed", default=seed, help="the seed, as a failure prints it (random)")
    parser.add_argument("--only", type=int, help="play only the seed's history with this number")
    parser.add_argument("--plan", help="play only this plan, as a failure prints it")
    parser.add_argument("--folder", type=Path, help="the folder for histories (a temporary folder)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a SIGTERM ends the started processes, too
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
