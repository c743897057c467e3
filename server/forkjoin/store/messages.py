"""The records of what agents are told after their task."""

from dataclasses import dataclass

from forkjoin.core.error import CallerError
from forkjoin.core.model import FINAL, Agent, Merge, State
from forkjoin.core.session import Call
from forkjoin.store import transitions
from forkjoin.store.database import Queries
from forkjoin.store.merges import remember
from forkjoin.store.transaction import Transactions


@dataclass(frozen=True, slots=True)
class Message:
    """What an agent is told, that waits for it."""

    number: int
    text: str


class Mail(Transactions):
    """The part of the store that tells of messages."""

    @Transactions.step()
    def tell(self, q: Queries, agent: Agent, text: str, call: Call, environment: str, account: str) -> int:
        """Record a message to an agent; the message's number.

        One that has ended is queued for another attempt, in this environment, which has this account.

        Raises:
            CallerError: It can't be told now; the message says why, and what would be right.
        """
        now = q.agent(agent.number)
        if why := _why_not(now, q.name_holder(project=now.project, name=now.name)):
            raise CallerError(f"{now.label} {why}")
        number: int = q.add_mail(agent=now.number, text=text)
        if now.state in FINAL:
            transitions.wake(q, now, environment, account)
        elif now.state is State.QUEUED:
            transitions.add_to_turn(q, now)
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

    async def begin_sending(self, message: Message) -> None:
        """Note what had happened before a message was sent: what comes later may be its answer."""
        await self._set("begin_sending", quiet=True, number=message.number)

    async def set_sent(self, message: Message, agent: Agent) -> bool:
        """Note that a message was sent to an agent's running program; whether that is new."""
        return bool(await self._set("set_sent", quiet=True, number=message.number, attempt=agent.attempt))


def _why_not(agent: Agent, name_holder: int | None) -> str | None:
    """Why an agent can't be told anything now, and what would be right; none where it can."""
    if agent.timing.removed or agent.removing:
        return "was removed, with its worktree; spawn a new agent for what is to be done."
    if agent.state not in FINAL:
        return "is being stopped; tell it once that is done (wait_agents)." if agent.stop_asked else None
    if agent.merge is Merge.QUEUED:
        return "is being merged; tell it once merge_worktree has answered."
    if name_holder not in (None, agent.number):
        return f"has lost its name, which is a{name_holder}'s by now; tell that one, or spawn another."
    return None
