"""The folders and files of one user's forkjoin.

Standard library only, since the relay imports this module. The socket is in the state folder and is always opened by a
relative path, since the path of a socket is limited to 108 bytes (unix(7)).
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from forkjoin.core.atomic_write import write_atomically

SOCKET = "daemon.sock"


class Home:
    """The folders of one user's forkjoin. The folders under `state` are private to the user (0700)."""

    def __init__(self, state: Path, config: Path, *, named: bool = False) -> None:
        self.state = state
        #: the environment variables that make a child process use this home
        self.variables = {"FORKJOIN_HOME": str(state)} if named else {}
        self.config_file = config / "config.toml"
        self.records = state / "records.sqlite"
        self.attempts = state / "attempts"
        self.worktrees = state / "worktrees"
        self.trust = state / "trust"
        self.shared_config = state / "shared-config"  #: snapshots of git configuration, a folder for each repository
        self.aside = state / "aside"  #: temporary folders
        self.log = state / "daemon.log"
        self.daemon_lock = state / "daemon.lock"
        self.start_lock = state / "start.lock"

    def __repr__(self) -> str:
        return f"Home({str(self.state)!r})"

    def draw_name(self) -> str:
        """Return the unique name of this home.

        The name has eight random hexadecimal digits, and is drawn on the first call.
        """
        file = self.state / "name"
        if not file.exists():
            write_atomically(file, os.urandom(4).hex().encode())
        return file.read_text()

    def clear_aside(self) -> None:
        """Remove temporary folders that killed processes have left."""
        for left in self.aside.glob("*"):
            shutil.rmtree(left, ignore_errors=True)

    def make(self) -> None:
        """Create the folders with mode 0700.

        Raises:
            PermissionError: A folder is a symlink, or belongs to another user.
        """
        for folder in (self.state, self.attempts, self.worktrees, self.aside):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700, parents=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise PermissionError(
                    f"{folder} is not a folder of this user. Move it away, or set FORKJOIN_HOME to another folder."
                )
            if stat.S_IMODE(found.st_mode) & 0o077:
                folder.chmod(0o700)


def find_home(environment: Mapping[str, str] = os.environ) -> Home:
    """Return the home at $FORKJOIN_HOME, or in the XDG state and config folders."""
    if given := environment.get("FORKJOIN_HOME"):
        folder = Path(os.path.abspath(os.path.expanduser(given)))  # noqa: PTH100, PTH111 (pathlib raises for unknown users)
        folder = folder.parent.resolve() / folder.name  # the last part stays unresolved: `make` refuses a symlink
        return Home(folder, folder, named=True)
    user = Path(environment.get("HOME") or "~").expanduser()

    def folder_of(variable: str, default: str) -> Path:
        given = Path(environment.get(variable, ""))
        return (
            given if given.is_absolute() else user / default
        ) / "forkjoin"  # the XDG specification ignores relative paths

    return Home(folder_of("XDG_STATE_HOME", ".local/state"), folder_of("XDG_CONFIG_HOME", ".config"))
