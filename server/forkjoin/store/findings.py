"""The records of what agents have found and tell each other."""

import time
from dataclasses import dataclass

from forkjoin.core.model import Agent
from forkjoin.core.session import Call
from forkjoin.store.database import Queries
from forkjoin.store.merges import remember
from forkjoin.store.transaction import Transactions

#: How many the agents of a lead have; the oldest go.
MOST = 30


@dataclass(frozen=True, slots=True)
class Finding:
    """What an agent has found, and when, in seconds since the epoch."""

    agent: int
    name: str
    at: float
    text: str


class Findings(Transactions):
    """The part of the store that tells of findings."""

    @Transactions.step(quiet=True)
    def share(self, q: Queries, agent: Agent, text: str, call: Call) -> None:
        """Record what an agent has found; the oldest goes where there are more than may be."""
        q.add_finding(agent=agent.number, at=time.time(), text=text)
        q.delete_findings(project=agent.project, lead=agent.lead, most=MOST)
        remember(q, call, {})

    async def findings(self, agent: Agent) -> list[Finding]:
        """What agents of the same lead have found, and the agent's own, the newest first."""
        found = await self._rows("findings", project=agent.project, lead=agent.lead, own=agent.as_lead, most=MOST)
        return [Finding(**row) for row in found]
