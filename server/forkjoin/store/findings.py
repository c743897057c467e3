"""The records of findings, which agents of one lead share with each other."""

import time
from dataclasses import dataclass

from forkjoin.core.model import Agent
from forkjoin.core.session import Call
from forkjoin.store.calls import remember
from forkjoin.store.database import Records, transaction
from forkjoin.store.queries import Queries

#: The most findings that are kept for the agents of one lead; older ones are deleted.
MOST = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """A text that an agent shared."""

    agent: int
    name: str
    at: float  #: seconds since the epoch
    text: str


class Findings(Records):
    """The part of the store for findings."""

    @transaction(announce=False)
    def add(self, q: Queries, agent: Agent, text: str, call: Call) -> None:
        """Record a finding of the agent, and delete the oldest if there are too many."""
        q.add_finding(agent=agent.number, at=time.time(), text=text)
        q.delete_findings(project=agent.project, lead=agent.lead, most=MOST)
        remember(q, call, {})

    async def shared_with(self, agent: Agent) -> list[Finding]:
        """Return findings of agents with the same lead and of the agent's own agents.

        The newest finding comes first.
        """
        found = await self._database.read_rows(
            "findings", project=agent.project, lead=agent.lead, own=agent.as_lead, most=MOST
        )
        return [Finding(**row) for row in found]
