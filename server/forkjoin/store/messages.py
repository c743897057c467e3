"""The records of messages to agents."""

from dataclasses import dataclass

from forkjoin.core.error import CallerError
from forkjoin.core.model import FINAL, Agent, Merge, State
from forkjoin.core.session import Call
from forkjoin.store.calls import remember
from forkjoin.store.database import Records, transaction
from forkjoin.store.lifecycle import add_messages_to_attempt, queue_ended_agent
from forkjoin.store.queries import Queries


@dataclass(frozen=True, slots=True)
class Message:
    """A message that waits for an agent."""

    number: int
    text: str


class Messages(Records):
    """The part of the store for messages."""

    @transaction()
    def add(self, q: Queries, agent: Agent, text: str, call: Call, environment: str, account: str) -> int:
        """Record a message to an agent, and return the message's number.

        An agent that has ended is queued for another attempt in this environment, with this account.

        Raises:
            CallerError: The agent can't get a message now. The error says why, and what to do.
        """
        now = q.agent(agent.number)
        if why := _message_refusal(now, q.name_holder(project=now.project, name=now.name)):
            raise CallerError(f"{now.label} {why}")
        number: int = q.add_mail(agent=now.number, text=text)
        if now.state in FINAL:
            queue_ended_agent(q, now, environment, account)
        elif now.state is State.QUEUED:
            add_messages_to_attempt(q, now)
        remember(q, call, {"mail": number})
        return number

    async def was_sent(self, number: int) -> bool:
        """Return whether the message has reached a running program."""
        return bool(await self._database.read("mail_sent", number=number))

    async def waiting(self, agent: Agent) -> list[Message]:
        """Return the messages that wait for the agent, oldest first."""
        return [Message(**row) for row in await self._database.read_rows("waiting_mail", agent=agent.number)]

    async def delivered(self, agent: Agent) -> list[str]:
        """Return the texts of all messages that the agent's attempts got, oldest first."""
        found = await self._database.read_rows("mail_told", agent=agent.number, attempt=agent.attempt)
        return [row["text"] for row in found]

    async def prompt(self, agent: Agent) -> str | None:
        """Return the first message of the agent's newest attempt, or None.

        None means that the attempt starts with the task: it starts again, or no model has answered the task yet.
        """
        return await self._database.read_one(str, "message", agent=agent.number, attempt=agent.attempt)

    async def agents_in_turn(self) -> list[Agent]:
        """Return the agents for which a message waits while their program is in a turn."""
        return await self._database.read_agents("agents_with_mail")

    async def begin_sending(self, message: Message) -> None:
        """Record the agent's last event before the message is sent.

        Later events may answer the message.
        """
        await self._database.execute("begin_sending", announce=False, number=message.number)

    async def set_sent(self, message: Message, agent: Agent) -> bool:
        """Record that the message was sent to the agent's running program.

        Returns:
            Whether the message had not been sent before.
        """
        return bool(
            await self._database.execute("set_sent", announce=False, number=message.number, attempt=agent.attempt)
        )


def _message_refusal(agent: Agent, name_holder: int | None) -> str | None:
    """Return why the agent can't get a message now, and what to do, or None."""
    if agent.timing.removed or agent.removing:
        return "was removed, with its worktree. Spawn a new agent instead."
    if agent.state not in FINAL:
        return "is being stopped. Send the message when it has stopped (wait_agents)." if agent.stop_asked else None
    if agent.merge is Merge.QUEUED:
        return "is being merged. Send the message when merge_worktree has answered."
    if name_holder not in (None, agent.number):
        return f"has lost its name to a{name_holder}. Send the message to that agent, or spawn another."
    return None
