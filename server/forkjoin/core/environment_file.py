"""A file on a tmpfs that passes the environments of leads on to the next daemon, and is never on a disk."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.regular_file import read_regular
from forkjoin.core.session import OsString

log = logging.getLogger(__name__)

#: Environments by digest.
_CONTENT = TypeAdapter(dict[str, dict[OsString, OsString]])


def find_runtime_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return $XDG_RUNTIME_DIR, or /run/user/<uid> if it isn't set."""
    return Path(environment.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")


class EnvironmentFile:
    """A file in the user's runtime folder, named for one home. Its methods block.

    Without a runtime folder that is on a tmpfs and private to the user, the file does not exist.
    """

    def __init__(self, folder: Path, home_name: str) -> None:
        self.path = folder / f"forkjoin-{home_name}-environments.json"

    def read(self) -> dict[str, dict[str, str]]:
        """Return the environments by digest.

        The dict is empty if the file is missing or damaged.
        """
        try:
            content = read_regular(self.path) if _is_private_tmpfs(self.path.parent) else None
            return _CONTENT.validate_python(json.loads(content)) if content else {}
        except (OSError, ValueError, ValidationError) as error:
            log.warning("%s can't be read, so agents wait for their leads: %s", self.path, type(error).__name__)
            return {}

    def write(self, environments: Mapping[str, Mapping[str, str]]) -> None:
        """Replace the file's content, or remove the file if there are no environments."""
        try:
            if not environments:
                self.path.unlink(missing_ok=True)
            elif _is_private_tmpfs(self.path.parent):
                write_atomically(self.path, json.dumps(environments).encode())
        except OSError as error:
            log.warning("%s can't be written, so agents may wait for their leads: %s", self.path, error)


def _is_private_tmpfs(folder: Path) -> bool:
    """Return whether the folder is on a tmpfs, and only the user can enter it.

    Source: proc_pid_mountinfo(5).
    """
    try:
        status = folder.stat()
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    types = [line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == device]
    return status.st_uid == os.getuid() and not status.st_mode & 0o077 and types[:1] == ["tmpfs"]
