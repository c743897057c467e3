"""The environments of leads, in which agents and merges run. They are kept in memory, never on a disk."""

import hashlib
from collections.abc import Iterable, Mapping, Set

from anyio import to_thread

from forkjoin.core.client_markup import neutralize
from forkjoin.core.environment_file import EnvironmentFile
from forkjoin.core.model import Agent
from forkjoin.core.redaction import redact, redact_edges, redact_end, secrets_of
from forkjoin.core.session import COMMAND_LINE, Caller


class Environments:
    """Known environments by digest, and the last one that each lead brought.

    Attributes:
        settings: Variables that the settings add to them, which may hold secrets.
        file: Hands environments on to the next daemon.
    """

    def __init__(self, settings: Iterable[Mapping[str, str]] = (), file: EnvironmentFile | None = None) -> None:
        self._settings = tuple(settings)
        self._file = file
        self._by_digest: dict[str, dict[str, str]] = {}
        self._in_file: Set[str] | None = None  #: digests; None if it is not known what the file holds
        self._by_lead: dict[tuple[int, str], str] = {}
        self._secrets: frozenset[str] | None = None  #: of all of them, once somebody has asked

    def keep(self, environment: Mapping[str, str]) -> str:
        """Remember `environment`; the digest it is found by again."""
        items = sorted(environment.items())
        digest = hashlib.sha256(repr(items).encode()).hexdigest()[:32]
        if digest not in self._by_digest:
            self._by_digest[digest] = dict(items)
            self._secrets = None
        return digest

    async def restore(self) -> None:
        """Add the environments that an earlier daemon saved."""
        if self._file:
            self._by_digest |= await to_thread.run_sync(self._file.read)

    async def save(self, needed: Set[str]) -> None:
        """Save the environments with these digests, and no others, for the next daemon."""
        environments = {digest: self._by_digest[digest] for digest in needed & self._by_digest.keys()}
        if self._file and environments.keys() != self._in_file:
            await to_thread.run_sync(self._file.write, environments)
            self._in_file = environments.keys()

    def lend(self, project: int, lead: str, digest: str) -> bool:
        """Let what this lead has in an environment that a restart has lost go on in this one; whether it is news."""
        before = self._by_lead.get((project, lead))
        self._by_lead[project, lead] = digest
        return before != digest

    @property
    def known(self) -> frozenset[str]:
        """The digests of those that are here."""
        return frozenset(self._by_digest)

    def prune(
        self, old: Set[str], needed: Iterable[tuple[str, int, str]], connected: Iterable[Mapping[str, str]]
    ) -> None:
        """Forget those that nobody needs: neither who is connected, nor who waits.

        Args:
            old: What was here before it was asked who needs what: a session may have come since. No other goes.
            needed: Of each who waits, its environment's digest, its project and its lead.
        """
        digests = {self.keep(environment) for environment in connected}
        leads: set[tuple[int, str]] = set()
        for digest, project, lead in needed:
            digests.add(digest)
            leads |= {(project, lead), (project, COMMAND_LINE)}
        self._by_lead = {
            key: last for key, last in self._by_lead.items() if key in leads or last in digests or last not in old
        }
        gone = old - digests.union(self._by_lead.values())
        self._by_digest = {digest: known for digest, known in self._by_digest.items() if digest not in gone}
        self._secrets = None

    def find(self, digest: str, project: int, lead: str) -> dict[str, str] | None:
        """The environment itself, else what its lead, or a person in the project, has brought since; else none."""
        known = (digest, self._by_lead.get((project, lead)), self._by_lead.get((project, COMMAND_LINE)))
        return next((self._by_digest[d] for d in known if d in self._by_digest), None)

    def of_agent(self, agent: Agent) -> dict[str, str] | None:
        """As `find`, what an agent was spawned in."""
        return self.find(agent.environment, agent.project, agent.root_lead)

    def of_caller(self, caller: Caller) -> dict[str, str]:
        """The caller's; of one that is an agent its lead's, without what the settings have added for its program."""
        agent = caller.session.agent
        found = self.find(caller.environment, caller.project.number, agent.root_lead if agent else caller.lead)
        return caller.session.hello.environment if found is None else found

    def of_anybody(self, project: int) -> dict[str, str] | None:
        """What anybody has brought who is, or was lately, in this project."""
        known = (digest for (where, _), digest in self._by_lead.items() if where == project)
        return next((self._by_digest[digest] for digest in known if digest in self._by_digest), None)

    def redact(self, text: str) -> str:
        """The text without what looks like a key, or is one in any of these environments."""
        return redact(text, self._known_secrets())

    def redact_edges(self, before: str, text: str, after: str) -> str:
        """A part of a longer text without the pieces of such keys that its two edges cut."""
        return redact_edges(before, text, after, self._known_secrets())

    def redact_end(self, before: str, text: str) -> str:
        """The end of a longer text without such keys, or the piece of one that its beginning cuts."""
        return redact_end(before, text, self._known_secrets())

    def _known_secrets(self) -> frozenset[str]:
        if self._secrets is None:
            known = (*self._settings, *self._by_digest.values())
            self._secrets = frozenset[str]().union(*map(secrets_of, known))
        return self._secrets

    def show(self, text: str) -> str:
        """Return agents' text without keys and client markup, for another model."""
        return neutralize(self.redact(text))
