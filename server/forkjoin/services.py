"""The services of one daemon, which agents and merges share."""

from dataclasses import dataclass, field
from weakref import WeakSet

import anyio

from forkjoin.core.lead_environments import LeadEnvironments
from forkjoin.core.paths import Home
from forkjoin.core.session import Caller, Session
from forkjoin.core.settings import Settings
from forkjoin.process.executor import Executor
from forkjoin.scheduling.rate_limit_policy import RateLimit
from forkjoin.store.store import Store


@dataclass(slots=True)
class Attachment:
    """A person in an agent's conversation."""

    caller: Caller | None  #: `None`: an earlier daemon ended while the person was attached
    work_before: str | None = None  #: a commit of everything in the worktree when the person came, if known

    @property
    def is_over(self) -> bool:
        """Return whether the person's connection is closed."""
        return self.caller is None or self.caller.session.closed


@dataclass(frozen=True, slots=True)
class Services:
    """The services of one daemon. Fields from `rate_limits` on are kept in memory only."""

    home: Home
    settings: Settings
    store: Store
    executor: Executor
    environments: LeadEnvironments
    home_name: str = ""  #: a short name that no other home has
    relay_command: tuple[str, ...] = ()  #: starts the MCP server with which an agent's program reaches the daemon
    #: limits of accounts whose vendor has refused a call, by account
    rate_limits: dict[str, RateLimit] = field(default_factory=dict[str, RateLimit])
    #: numbers of agents that are under way and wait for their lead's environment: they use no slot
    waiting_for_environment: set[int] = field(default_factory=set[int])
    #: numbers of agents that only wait for agents that they spawned, once for each wait: they use no slot
    waiting_for_nested: list[int] = field(default_factory=list[int])
    #: attached persons by agent number, until everything that they left running has ended
    attached: dict[int, Attachment] = field(default_factory=dict[int, Attachment])
    #: open connections that were made in a repository
    project_sessions: WeakSet[Session] = field(default_factory=WeakSet[Session])
    #: for each project, the lock that lets one removal at a time check and act
    removal_locks: dict[int, anyio.Lock] = field(default_factory=dict[int, anyio.Lock])
