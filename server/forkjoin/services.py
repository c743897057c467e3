"""The services behind an agent's life and a landing, open."""

import time
from dataclasses import dataclass, field
from weakref import WeakSet

import anyio

from forkjoin.core.lead_environments import Environments
from forkjoin.core.paths import Home
from forkjoin.core.session import Caller, Session
from forkjoin.core.settings import Settings
from forkjoin.process.executor import Executor
from forkjoin.scheduling.rate_limit_policy import RateLimit
from forkjoin.store.store import Store

#: How soon after a restart a command is back that holds on to an agent: it asks every second.
_BACK_S = 30.0


@dataclass(frozen=True, slots=True)
class Services:
    """What a daemon has one of: the services, open, and, from `rate_limits` on, what it keeps in memory alone."""

    home: Home
    settings: Settings
    store: Store
    executor: Executor
    environments: Environments
    home_name: str = ""  #: of the home, which no other has
    relay_command: tuple[str, ...] = ()  #: how an agent's program starts the one for its own tools
    #: of accounts whose vendor has refused a call
    rate_limits: dict[str, RateLimit] = field(default_factory=dict[str, RateLimit])
    #: agents under way that wait for their lead's environment, which a restart has lost, and so have no slot
    waiting_for_environment: set[int] = field(default_factory=set[int])
    #: agents at work whose program only waits for agents that it has spawned, once for each wait, and so have no slot
    waiting_for_nested: list[int] = field(default_factory=list[int])
    #: who is in the conversation of an agent, by its number; those too whose connection has just gone
    attached: dict[int, Caller] = field(default_factory=dict[int, Caller])
    #: the commit of all that was in the worktree of each when they came, as far as this daemon knows
    work_before_attach: dict[int, str | None] = field(default_factory=dict[int, str | None])
    #: agents in whose conversation somebody was when an earlier daemon ended, until they are back or it is too late
    attached_before_restart: set[int] = field(default_factory=set[int])
    #: when a daemon that has just come up waits no more for those who were in one
    reattach_deadline: float = field(default_factory=lambda: time.time() + _BACK_S)
    #: the connections that have stood in a repository, as long as they are there
    project_sessions: WeakSet[Session] = field(default_factory=WeakSet[Session])
    #: for each project, what lets one removal after the other look and act
    removal_locks: dict[int, anyio.Lock] = field(default_factory=dict[int, anyio.Lock])
