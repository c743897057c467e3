"""The vendors' real programs, at pinned versions, installed with npm into a cache of this checkout.

`python tests/vendors.py` installs them all and says plainly what can't be. Another build of a program is tried with
`FORKJOIN_CLAUDE=/path/to/claude`; with `FORKJOIN_NO_VENDORS=1` the tests that need such programs are skipped.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "vendors"

_INSTALL_S = 600


@dataclass(frozen=True, slots=True)
class Vendor:
    name: str  #: what its program is called
    package: str
    version: str

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.name}-{self.version}"


#: This claude runs on Node 20; the newest needs 22.
VENDORS = {vendor.name: vendor for vendor in (Vendor("claude", "@anthropic-ai/claude-code", "2.1.197"),)}


class NotInstalledError(Exception):
    """A vendor's program can't be had."""

    def __init__(self, vendor: Vendor, why: str) -> None:
        super().__init__(f"{vendor.package}@{vendor.version} can't be installed: {why.strip()[-1000:]}")


def skip_reason() -> str | None:
    """Why tests that need vendors' programs are to be skipped, if they are."""
    wanted = os.environ.get("FORKJOIN_NO_VENDORS") != "1"
    return None if wanted else "FORKJOIN_NO_VENDORS=1: vendors' programs are neither installed nor run"


def program(name: str) -> Path:
    """The vendor's program of this name, installed first where it is not.

    Raises:
        NotInstalledError: That was not possible; the message says why.
    """
    if given := os.environ.get(f"FORKJOIN_{name.upper()}"):
        return Path(given)
    vendor = VENDORS[name]
    with _lock():
        if not vendor.folder.exists():
            _install(vendor)
    return _program_in(vendor.folder, vendor)


def _program_in(folder: Path, vendor: Vendor) -> Path:
    return folder / "node_modules" / ".bin" / vendor.name


@contextmanager
def _lock() -> Generator[None]:
    """Two that install at once would tread on each other: one waits for the other."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(vendor: Vendor) -> None:
    """Install into a folder beside, see that the program runs, and only then put it in place."""
    new = vendor.folder.with_name(f"{vendor.folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    package = f"{vendor.package}@{vendor.version}"
    _run(vendor, "npm", "install", "--prefix", str(new), "--no-audit", "--no-fund", package)
    _run(vendor, str(_program_in(new, vendor)), "--version")
    new.rename(vendor.folder)


def _run(vendor: Vendor, *argv: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(vendor, f"{argv[0]}: {error}") from error
    if done.returncode:
        raise NotInstalledError(vendor, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")


def main() -> int:
    """Install all; the exit code."""
    missing = 0
    for name in VENDORS:
        try:
            sys.stdout.write(f"{name}: {program(name)}\n")
        except NotInstalledError as error:
            missing += 1
            sys.stderr.write(f"{name}: {error}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
