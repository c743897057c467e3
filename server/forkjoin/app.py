"""The composition root: builds the services, and runs the daemon from its start to its end."""

import logging
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
from anyio import CancelScope, to_thread

from forkjoin.core import file_lock
from forkjoin.core.daemon_log import open_journal
from forkjoin.core.error import CallerError, RecordsError
from forkjoin.core.paths import Home, find_home
from forkjoin.core.redaction import redact
from forkjoin.process import capacity, daemon_cgroup, resource_limits
from forkjoin.transport.daemon_connection import daemon_command, relay_command
from forkjoin.version import __version__

if TYPE_CHECKING:
    from forkjoin.reconciler import Reconciler
    from forkjoin.transport.socket_server import SocketServer

log = logging.getLogger(__name__)

_IDLE_CHECK_S = 5.0


def run() -> int:
    """Run the command line, or the daemon for `forkjoin daemon run`.

    Return the exit code.
    """
    if sys.argv[1:] == ["daemon", "run"]:
        return run_daemon()
    from forkjoin.cli import app

    return app.run()


def run_daemon() -> int:
    """Run the daemon until it is idle or told to stop. Return the exit code."""
    home = find_home()
    home.make()
    if file_lock.take(home.daemon_lock) is None:
        return 0  # another daemon runs already
    daemon_cgroup.join_daemon_cgroup()
    resource_limits.reset_in_daemon()
    open_journal(home.log, redact)
    try:
        anyio.run(serve, home)
    except (CallerError, RecordsError) as error:
        log.critical("%s", error)
        return 1
    except Exception as error:
        log.critical("this is a fault of forkjoin's own: %s: %s", type(error).__name__, error, exc_info=True)
        return 3
    return 0


async def serve(home: Home) -> None:
    """Run the services and accept connections until the daemon ends."""
    from forkjoin_tools.mcp_server import serve_mcp

    from forkjoin.authentication import authenticate
    from forkjoin.git.git_version import require_version
    from forkjoin.transport import socket_server

    await require_version()
    async with open_reconciler(home) as reconciler, socket_server.bind(home) as listener:
        server = socket_server.SocketServer(
            partial(serve_mcp, reconciler),
            partial(authenticate, reconciler.services),
            reconciler.services.executor.find_owner,
        )
        open_journal(home.log, reconciler.services.environments.redact)
        log.info("the daemon is up: %r, version %s", reconciler, __version__)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_on_signal, tasks.cancel_scope)
            tasks.start_soon(_end_when_damaged, reconciler, tasks.cancel_scope)
            tasks.start_soon(_end_when_idle, reconciler, server, tasks.cancel_scope)
            tasks.start_soon(reconciler.conflict_preview.watch)
            tasks.start_soon(reconciler.run)
            await server.serve(listener, tasks)
        await reconciler.services.environments.save(await reconciler.store.agents.needed_environments())
    log.info("down")


@asynccontextmanager
async def open_reconciler(home: Home) -> AsyncGenerator["Reconciler"]:
    """Open the services of this home, and close the store at the end."""
    from forkjoin.agents.restore_records import restore
    from forkjoin.core.environment_file import EnvironmentFile, find_runtime_folder
    from forkjoin.core.lead_environments import LeadEnvironments
    from forkjoin.core.settings import read_settings
    from forkjoin.core.trust_records import Trust
    from forkjoin.git.git_config import GIT_CONFIG
    from forkjoin.process.executor import Executor
    from forkjoin.reconciler import Reconciler
    from forkjoin.services import Services
    from forkjoin.store.store import open_store

    settings = read_settings(home.config_file).on(capacity.find_memory())
    GIT_CONFIG.use_trust(Trust(home.trust))
    store = await open_store(home.records)
    try:
        executor = Executor(home.attempts, home.daemon_lock, daemon_command(), settings.limits.in_all)
        name = await to_thread.run_sync(home.draw_name)
        added = (program.environment for program in settings.programs().values())
        environments = LeadEnvironments(added, EnvironmentFile(find_runtime_folder(), name))
        await environments.restore()
        await to_thread.run_sync(home.clear_aside)
        await restore(home, store)
        yield Reconciler(Services(home, settings, store, executor, environments, name, relay_command()))
    finally:
        with CancelScope(shield=True):
            await store.close()


async def _end_on_signal(scope: CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for signum in signals:
            log.info("told to end by %s", signum.name)
            scope.cancel()
            return


async def _end_when_damaged(reconciler: "Reconciler", scope: CancelScope) -> None:
    """End the daemon once its records are found damaged.

    The next daemon sets them aside and starts new ones.
    """
    from forkjoin.store.damage_detection import suspect

    await reconciler.store.database.damaged.wait()
    log.error("leaving: the records are damaged")
    suspect(reconciler.services.home.records)
    scope.cancel()


async def _end_when_idle(reconciler: "Reconciler", server: "SocketServer", scope: CancelScope) -> None:
    """End the daemon after `idle_minutes` without connections and work."""
    idle_since = anyio.current_time()
    while True:
        await anyio.sleep(_IDLE_CHECK_S)
        if server.connected or not reconciler.is_idle:
            idle_since = anyio.current_time()
        elif anyio.current_time() - idle_since > reconciler.services.settings.limits.idle_minutes * 60:
            log.info("leaving: nothing to do")
            scope.cancel()
