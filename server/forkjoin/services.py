"""The services behind an agent's life and a landing, open."""

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
    """What a daemon has one of: the services, open, and, from `rate_limits` on, what it keeps in memory alone."""

    home: Home
    settings: Settings
    store: Store
    executor: Executor
    environments: LeadEnvironments
    home_name: str = ""  #: of the home, which no other has
    relay_command: tuple[str, ...] = ()  #: how an agent's program starts the one for its own tools
    #: of accounts whose vendor has refused a call
    rate_limits: dict[str, RateLimit] = field(default_factory=dict[str, RateLimit])
    #: agents under way that wait for their lead's environment, which a restart has lost, and so have no slot
    waiting_for_environment: set[int] = field(default_factory=set[int])
    #: agents at work whose program only waits for agents that it has spawned, once for each wait, and so have no slot
    waiting_for_nested: list[int] = field(default_factory=list[int])
    #: attached persons by agent number, until everything that they left running has ended
    attached: dict[int, Attachment] = field(default_factory=dict[int, Attachment])
    #: the connections that have stood in a repository, as long as they are there
    project_sessions: WeakSet[Session] = field(default_factory=WeakSet[Session])
    #: for each project, what lets one removal after the other look and act
    removal_locks: dict[int, anyio.Lock] = field(default_factory=dict[int, anyio.Lock])
