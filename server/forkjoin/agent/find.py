"""Which agent is meant by an id or a name."""

from forkjoin.error import UnknownAgentError
from forkjoin.model import Agent
from forkjoin.record.store import Store


async def find(store: Store, project: int, asked: str) -> Agent:
    """The project's agent that an id or name means.

    Raises:
        UnknownAgentError: There is none; the message tells the newest.
    """
    found = await store.find(project, asked)
    if found is None:
        raise UnknownAgentError(asked, await store.newest(project))
    return found
