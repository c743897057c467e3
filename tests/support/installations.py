"""Further installations of forkjoin, of other versions, side by side with the one that is tested."""

import re
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

from support.harness import GIVE_UP_S

ROOT = Path(__file__).parents[2]


class Install:
    """A Python in which this tree is installed as another version."""

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
        """Put another version in the place of this one, as an upgrade does."""
        text = re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', self._version_file.read_text())
        self._version_file.write_text(re.sub(r"PROTOCOL = \d+", f"PROTOCOL = {protocol}", text))
        # bytecode of the same second and size would be taken for the new file's
        shutil.rmtree(self._version_file.with_name("__pycache__"), ignore_errors=True)

    @property
    def relay(self) -> tuple[str, ...]:
        return (str(self.python), "-P", "-E", "-m", "forkjoin", "mcp")

    def forkjoin(self, where: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        argv = [str(self.python), "-P", "-E", "-m", "forkjoin", *arguments]
        return subprocess.run(argv, cwd=where, capture_output=True, text=True, check=False, timeout=2 * GIVE_UP_S)
