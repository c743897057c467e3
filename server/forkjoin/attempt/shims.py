"""The shims that this process has started: an ended one stays a zombie until somebody waits for it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from forkjoin.attempt import process, shim
from forkjoin.attempt.environment import encode

#: Their pids, by the folders of their attempts.
_pids: dict[Path, int] = {}


def start(folder: Path, taken: int, environment: Mapping[str, str]) -> None:
    """Fork a shim, which inherits the lock, and send it the program's environment.

    Raises:
        ValueError: No program can be given that environment.
    """
    sent = encode(environment)
    own = {name: value for name, value in os.environ.items() if name != process.MARK}
    argv = [sys.executable, "-S", "-E", "-I", shim.__file__, str(folder), str(taken)]
    with os.fdopen(os.open(folder / "shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)) as log:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(taken,),
            start_new_session=True,
            env={**own, process.KEEPER: "1"},
        )
    _pids[folder] = child.pid
    child.returncode = 0  # that it ends is seen by its pid
    assert child.stdin
    with contextlib.suppress(BrokenPipeError), child.stdin:  # if it is gone, nothing is started
        child.stdin.write(sent)


def started(above: Path) -> list[Path]:
    """The folders, of those in this one, whose shims were started here and not waited for yet."""
    return [folder for folder in [*_pids] if folder.parent == above]


def reap(folder: Path) -> None:
    """Wait for a shim of ours that has let go of its lock: it is all but gone."""
    if (folder / "lock").exists() and (pid := _pids.pop(folder, None)):
        with contextlib.suppress(ChildProcessError):  # whoever started us may have had SIGCHLD ignored
            os.waitpid(pid, 0)
