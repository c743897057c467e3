"""Where `forkjoin` and `python -m forkjoin` begin.

Standard library only. Whatever else it may do, it runs as `python -P -E`, so that neither PYTHONPATH nor the folder it
is called in can put a module of a repository before ours.
"""

import os
import sys


def main() -> None:
    """Run the relay, or else the command line."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:  # one that was closed: it would be the first file that is opened
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
    except KeyboardInterrupt:  # while it was being imported
        sys.exit(130)


if __name__ == "__main__":
    main()
