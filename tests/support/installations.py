"""Installations of forkjoin as other versions, in addition to the installation that is tested."""

import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

from support.harness import GIVE_UP_S

ROOT = Path(__file__).parents[2]


class Install:
    """A virtual environment in which this source tree is installed as another version."""

    def __init__(self, folder: Path, version: str, protocol: int = 1) -> None:
        self.python = folder / "bin" / "python"
        self._version_file = folder / "server" / "forkjoin" / "version.py"
        venv.create(folder, with_pip=False, symlinks=True)
        ignore = shutil.ignore_patterns("__pycache__")
        for part in ("server", "tools"):
            shutil.copytree(ROOT / part, folder / part, ignore=ignore)
        packages = sysconfig.get_path("purelib", vars={"base": str(folder)})
        paths = (folder / "server", folder / "tools", sysconfig.get_path("purelib"))
        (Path(packages) / "forkjoin.pth").write_text("".join(f"{path}\n" for path in paths))
        self.set_version(version, protocol)

    def set_version(self, version: str, protocol: int = 1) -> None:
        """Replace the installed version in place, as an upgrade does."""
        text = re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', self._version_file.read_text())
        self._version_file.write_text(re.sub(r"PROTOCOL = \d+", f"PROTOCOL = {protocol}", text))
        # Python would use the old bytecode: it compares only the source file's size and its time in whole seconds
        shutil.rmtree(self._version_file.with_name("__pycache__"), ignore_errors=True)

    @property
    def relay(self) -> tuple[str, ...]:
        """The command that starts this installation's relay."""
        return (str(self.python), "-P", "-E", "-m", "forkjoin", "mcp")

    def forkjoin(self, where: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run this installation's command line in a folder."""
        argv = [str(self.python), "-P", "-E", "-m", "forkjoin", *arguments]
        return subprocess.run(argv, cwd=where, capture_output=True, text=True, check=False, timeout=2 * GIVE_UP_S)
