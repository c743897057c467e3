"""Messages to agents that have their task already. Messages are recorded first, then sent in order.

A program that takes messages while it runs gets them at once. Any other program gets them in the agent's next attempt.
"""

import logging
from contextlib import suppress
from typing import Literal

from forkjoin.adapters.contract import Adapter
from forkjoin.adapters.registry import ADAPTERS
from forkjoin.core.error import CallerError, ForkjoinError, GitError, describe_error
from forkjoin.core.event import Noted
from forkjoin.core.model import FINAL, RUNS, Agent, State
from forkjoin.core.session import Caller
from forkjoin.git import git
from forkjoin.git.refs import is_ancestor
from forkjoin.services import Services
from forkjoin.workspace.workspace import find_account

log = logging.getLogger(__name__)

#: The number of characters of a message that the agent's log shows.
_LOGGED = 200

#: When an agent gets a message: `now` if it was sent to the running program, else in its `next_turn`.
Delivery = Literal["now", "next_turn"]


async def send_message(services: Services, caller: Caller, agent: Agent, text: str) -> tuple[Agent, Delivery]:
    """Record a message to an agent, and send it at once if the program can take it.

    Returns:
        The agent's record afterwards, and when the agent gets the message.

    Raises:
        CallerError: The agent can't get messages. Nothing was recorded.
    """
    before = await services.store.calls.answer_to(caller.call)
    number = before["mail"] if before else await _record(services, caller, agent, text)
    try:
        await deliver_messages(services, await services.store.agents.get(agent.number))
    except (ForkjoinError, OSError) as error:  # the message is recorded, and the reconciler sends it later
        log.warning("%s gets a message later: %s", agent.label, describe_error(error))
    sent = await services.store.messages.was_sent(number)
    return await services.store.agents.get(agent.number), "now" if sent else "next_turn"


async def _record(services: Services, caller: Caller, agent: Agent, text: str) -> int:
    """Record a message, and return its number.

    The message queues another attempt of an agent that has ended.
    """
    if agent.state in FINAL:
        await _check_not_reverted(services, agent)
    environment = services.environments.find_for_caller(caller)
    account = find_account(services, environment, agent.spec.agent, await services.store.projects.recipe(agent))
    return await services.store.messages.add(agent, text, caller.call, caller.environment, account)


async def _check_not_reverted(services: Services, agent: Agent) -> None:
    """Raise a CallerError if a merge of the agent's branch was reverted.

    git counts such a branch as merged, so a later merge would only bring the agent's new commits.
    """
    if (revert := await services.store.merges.revert_of(agent)) is None:
        return
    target, commit = revert
    words = ("--fixed-strings", f"--grep=This reverts commit {commit}")
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    with suppress(GitError):  # git can't tell, because the target or the commit is gone
        if not await is_ancestor(common_dir, commit, target):
            return
        if not await git.output(common_dir, "log", "-1", "--format=%H", *words, f"{commit}..{target}", "--"):
            raise CallerError(
                f"The merge of {agent.label} was reverted, so a new merge would bring only its new commits. Undo the "
                f"revert first (git revert {commit[:10]}), or spawn a new agent."
            )


async def deliver_messages(services: Services, agent: Agent) -> None:
    """Send the waiting messages to an agent's running program, if it can take them.

    If a daemon was killed while it sent a message, the program does not get the message twice.

    Raises:
        OSError: The disk is full. The messages keep waiting.
    """
    adapter = find_message_adapter(services, agent)
    if adapter is None or not (agent.under_way and agent.state in (*RUNS, State.PAUSED)):
        return
    for message in await services.store.messages.waiting(agent):
        turn = adapter.encode_turn(message.text, f"{agent.conversation} {message.number}")
        await services.store.messages.begin_sending(message)
        if not await services.executor.send(agent.handle, turn, once=True):
            return
        if await services.store.messages.set_sent(message, agent):
            await services.store.events.add(agent, [(Noted(f"told: {message.text[:_LOGGED]}"), -1)])


def find_message_adapter(services: Services, agent: Agent) -> Adapter | None:
    """Return the agent's adapter if its program takes messages while it runs.

    Otherwise return `None`.

    Also return `None` if the program was removed from the settings.
    """
    program = services.settings.programs().get(agent.spec.agent or services.settings.default_agent)
    adapter = ADAPTERS[program.kind] if program else None
    return adapter if adapter and adapter.TAKES_TURNS else None
