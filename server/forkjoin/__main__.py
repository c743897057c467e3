"""The entry point of `forkjoin` and `python -m forkjoin`. Imports the standard library only.

It restarts itself as `python -P -E`, so that neither PYTHONPATH nor the current folder can replace a module of
forkjoin by one of a repository.
"""

import os
import sys


def main() -> None:
    """Run the relay for `forkjoin mcp`, else the command line.

    Exit with its exit code.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # a closed standard stream would be the next file opened
        os.set_inheritable(fd, True)
    os.close(fd)
    if not (sys.flags.safe_path and sys.flags.ignore_environment):
        argv = [sys.executable, "-P", "-E", "-m", "forkjoin", *sys.argv[1:]]
        os.execv(sys.executable, argv)  # noqa: S606
    try:
        if sys.argv[1:] == ["mcp"]:
            from forkjoin.transport.relay import run
        else:
            from forkjoin.app import run
        sys.exit(run())
    except KeyboardInterrupt:  # during an import
        sys.exit(130)


if __name__ == "__main__":
    main()
