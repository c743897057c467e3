"""More connections than the daemon may have files open: it stays, and lets in whoever says hello meanwhile."""

import resource
import subprocess
from contextlib import ExitStack
from pathlib import Path

from forkjoin.connection import reach
from forkjoin.paths import Home
from harness import forkjoin

FILES = 64


def test_more_connections_than_there_are_descriptors_do_not_end_the_daemon(home: Home, repository: Path) -> None:
    limited = subprocess.run(
        [*reach.daemon_command()[:-2], "daemon", "start"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES)),
        cwd=repository,
        check=False,
        capture_output=True,
        text=True,
    )
    assert limited.returncode == 0, limited.stderr
    with ExitStack() as crowd:
        for _ in range(2 * FILES):
            connection = reach.try_connect(home)
            assert connection
            crowd.enter_context(connection)
        assert "is up" in forkjoin(repository, "daemon", "status").stdout
    assert home.log.read_text().count("the daemon is up") == 1
