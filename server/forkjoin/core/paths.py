"""Where forkjoin keeps what it keeps.

Standard library only, since relay, shim and daemon must all find the same folder, and the first two before anything
else is imported. The socket stands in the state folder and is always named relative to it, so that no home is too
deep for the 108 bytes that a socket's path may have (see unix(7)).
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
    """The folders of one user's forkjoin; those under `state` are private to the user (0700)."""

    def __init__(self, state: Path, config: Path, *, named: bool = False) -> None:
        self.state = state
        #: what leads a program that is started with it to this home, too
        self.variables = {"FORKJOIN_HOME": str(state)} if named else {}
        self.config_file = config / "config.toml"
        self.records = state / "records.sqlite"
        self.attempts = state / "attempts"
        self.worktrees = state / "worktrees"
        self.trust = state / "trust"
        self.shared_config = state / "shared-config"  #: snapshots, a folder for each repository
        self.aside = state / "aside"  #: what is made to be looked at, and not kept
        self.log = state / "daemon.log"
        self.daemon_lock = state / "daemon.lock"
        self.start_lock = state / "start.lock"

    def __repr__(self) -> str:
        return f"Home({str(self.state)!r})"

    def draw_name(self) -> str:
        """What no other home is called: eight characters, drawn once."""
        file = self.state / "name"
        if not file.exists():
            write_atomically(file, os.urandom(4).hex().encode())
        return file.read_text()

    def clear_aside(self) -> None:
        """Take away what somebody who was killed has left aside."""
        for left in self.aside.glob("*"):
            shutil.rmtree(left, ignore_errors=True)

    def make(self) -> None:
        """Make the folders, open to their owner alone.

        Raises:
            PermissionError: A folder is a symlink, or belongs to somebody else.
        """
        for folder in (self.state, self.attempts, self.worktrees, self.aside):
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700, parents=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                raise PermissionError(f"{folder} is not a folder of your own; move it away or set FORKJOIN_HOME")
            if stat.S_IMODE(found.st_mode) & 0o077:
                folder.chmod(0o700)


def find_home(environment: Mapping[str, str] = os.environ) -> Home:
    """The home that `environment` names: $FORKJOIN_HOME, else the platform's own state and config folders."""
    if given := environment.get("FORKJOIN_HOME"):
        folder = Path(os.path.abspath(os.path.expanduser(given)))  # noqa: PTH100, PTH111 (pathlib refuses who is unknown)
        folder = folder.parent.resolve() / folder.name  # which may be no link: whose it is would be another's to say
        return Home(folder, folder, named=True)
    user = Path(environment.get("HOME") or "~").expanduser()

    def folder_of(variable: str, default: str) -> Path:
        given = Path(environment.get(variable, ""))
        return (given if given.is_absolute() else user / default) / "forkjoin"  # a relative one is to be ignored

    return Home(folder_of("XDG_STATE_HOME", ".local/state"), folder_of("XDG_CONFIG_HOME", ".config"))
