"""The records of what agents are told after their task."""

from dataclasses import dataclass
from typing import Any

from forkjoin.error import CallerError
from forkjoin.model import FINAL, Agent, Merge, State
from forkjoin.record import rows, turns
from forkjoin.record.landings import remember
from forkjoin.record.transaction import Transactions
from forkjoin.session import Call


@dataclass(frozen=True, slots=True)
class Message:
    """What an agent is told, that waits for it."""

    number: int
    text: str


class Mail(Transactions):
    """The part of the store that tells of messages."""

    @Transactions.step()
    def tell(self, q: Any, agent: Agent, text: str, call: Call) -> int:
        """Record a message to an agent, which is queued for another attempt where it has ended; the message's number.

        Raises:
            CallerError: Its worktree is gone, or its name is another's by now.
        """
        now = rows.agent(q.agent_numbered(number=agent.number))
        if now.removed or now.removing:
            raise CallerError(f"{now.label} was removed, with its worktree; spawn a new agent for what is to be done.")
        number: int = q.add_mail(agent=now.number, text=text)
        if now.state in FINAL:
            _wake(q, now)
        elif now.state is State.QUEUED and now.attempt > 1:
            turns.add_to_turn(q, now)
        remember(q, call, {"mail": number})
        return number

    async def was_sent(self, number: int) -> bool:
        """Whether the message of this number has reached a running program."""
        return bool(await self._read("mail_sent", number=number))

    async def waiting_mail(self, agent: Agent) -> list[Message]:
        """What waits for an agent, in the order in which it was said."""
        return [Message(**row) for row in await self._rows("waiting_mail", agent=agent.number)]

    async def told(self, agent: Agent) -> list[str]:
        """What the agent was told so far, after its task."""
        return [row["text"] for row in await self._rows("mail_told", agent=agent.number, attempt=agent.attempt)]

    async def with_mail(self) -> list[Agent]:
        """Those that run, in a turn that is not over, and for whom something waits."""
        return await self._agents("agents_with_mail")

    @Transactions.step(quiet=True)
    def set_sent(self, q: Any, message: Message, agent: Agent) -> bool:
        """Note that a message was sent to an agent's running program; whether that is new."""
        return bool(q.set_sent(number=message.number, attempt=agent.attempt))


def _wake(q: Any, agent: Agent) -> None:
    """Queue another attempt of one that has ended; what it does is not merged, nor stopped, yet."""
    holder: int | None = q.name_holder(project=agent.project, name=agent.name)
    if holder not in (None, agent.number):
        raise CallerError(f"The name of {agent.label} is a{holder}'s by now; tell that one, or spawn another.")
    q.wake_agent(number=agent.number)
    if agent.merge is Merge.MERGED:
        q.set_merge(number=agent.number, merge=Merge.UNMERGED)
    turns.begin_again(q, agent, "")
