"""The environments of leads, in which agents and merges run. They never reach a disk."""

import hashlib
from collections.abc import Iterable, Mapping, Set

from anyio import to_thread

from forkjoin.core.client_markup import neutralize
from forkjoin.core.environment_file import EnvironmentFile
from forkjoin.core.model import Agent
from forkjoin.core.redaction import redact, redact_edges, redact_end, secrets_of
from forkjoin.core.session import COMMAND_LINE, Caller


class LeadEnvironments:
    """The known environments by digest, and the current one of each lead."""

    def __init__(self, settings: Iterable[Mapping[str, str]] = (), file: EnvironmentFile | None = None) -> None:
        """Create an empty collection.

        Args:
            settings: Variables that the settings add for agents' programs. Their secrets are redacted, too.
            file: Passes environments on to the next daemon.
        """
        self._settings = tuple(settings)
        self._file = file
        self._by_digest: dict[str, dict[str, str]] = {}
        self._by_lead: dict[tuple[int, str], str] = {}  #: digests by project number and lead
        self._in_file: Set[str] | None = None  #: the digests in the file, if known
        self._secrets: frozenset[str] | None = None  #: the secrets in all environments, once computed

    def add(self, environment: Mapping[str, str]) -> str:
        """Add an environment and return its digest."""
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
        """Save only the environments with these digests for the next daemon."""
        environments = {digest: self._by_digest[digest] for digest in needed & self._by_digest.keys()}
        if self._file and environments.keys() != self._in_file:
            await to_thread.run_sync(self._file.write, environments)
            self._in_file = environments.keys()

    def set_current(self, project: int, lead: str, digest: str) -> bool:
        """Set a lead's current environment.

        `find` returns it for agents whose recorded environment is lost.

        Returns:
            Whether the lead had another environment, or no environment, before.
        """
        before = self._by_lead.get((project, lead))
        self._by_lead[project, lead] = digest
        return before != digest

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all known environments."""
        return frozenset(self._by_digest)

    def prune(
        self, old: Set[str], needed: Iterable[tuple[str, int, str]], connected: Iterable[Mapping[str, str]]
    ) -> None:
        """Forget environments that no session, agent or merge needs.

        Sessions count while they are connected, agents until their end, merges while they are open.

        Args:
            old: The digests known before `needed` was read. Newer environments are kept.
            needed: The environment's digest, project number and lead of each unfinished agent and open merge.
            connected: The environments of the connected sessions.
        """
        digests = {self.add(environment) for environment in connected}
        leads: set[tuple[int, str]] = set()
        for digest, project, lead in needed:
            digests.add(digest)
            leads |= {(project, lead), (project, COMMAND_LINE)}
        self._by_lead = {
            key: current
            for key, current in self._by_lead.items()
            if key in leads or current in digests or current not in old
        }
        unneeded = old - digests.union(self._by_lead.values())
        self._by_digest = {digest: known for digest, known in self._by_digest.items() if digest not in unneeded}
        self._secrets = None

    def find(self, digest: str, project: int, lead: str) -> dict[str, str] | None:
        """Return the environment with this digest, or its replacement if it is lost.

        The replacement is the current environment of the lead, or else of a person's command line in the project.
        Return `None` if neither is known.
        """
        digests = (digest, self._by_lead.get((project, lead)), self._by_lead.get((project, COMMAND_LINE)))
        return next((self._by_digest[known] for known in digests if known in self._by_digest), None)

    def find_for_agent(self, agent: Agent) -> dict[str, str] | None:
        """Return the environment of an agent's lead, or its replacement as in `find`."""
        return self.find(agent.environment, agent.project, agent.root_lead)

    def find_for_caller(self, caller: Caller) -> dict[str, str]:
        """Return the caller's environment.

        For an agent this is the environment of its lead, without the variables that the settings add for the program.
        """
        agent = caller.session.agent
        found = self.find(caller.environment, caller.project.number, agent.root_lead if agent else caller.lead)
        return caller.session.hello.environment if found is None else found

    def find_in_project(self, project: int) -> dict[str, str] | None:
        """Return the current environment of any lead in this project, or `None`."""
        digests = (digest for (where, _), digest in self._by_lead.items() if where == project)
        return next((self._by_digest[digest] for digest in digests if digest in self._by_digest), None)

    def redact(self, text: str) -> str:
        """Return the text without keys, and without the secrets in any known environment."""
        return redact(text, self._all_secrets())

    def redact_edges(self, before: str, text: str, after: str) -> str:
        """Return an excerpt without fragments of secrets at its two edges.

        Args:
            before: The text before the excerpt.
            text: The excerpt.
            after: The text after the excerpt.
        """
        return redact_edges(before, text, after, self._all_secrets())

    def redact_end(self, before: str, text: str) -> str:
        """Return the end of a longer text without secrets.

        A fragment of a secret at its beginning is redacted, too.
        """
        return redact_end(before, text, self._all_secrets())

    def _all_secrets(self) -> frozenset[str]:
        if self._secrets is None:
            environments = (*self._settings, *self._by_digest.values())
            self._secrets = frozenset[str]().union(*map(secrets_of, environments))
        return self._secrets

    def show(self, text: str) -> str:
        """Return an agent's text for another model, without secrets and client markup."""
        return neutralize(self.redact(text))
