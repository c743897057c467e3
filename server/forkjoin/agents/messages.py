"""Telling agents something after their task: recorded first, then given to the program that runs, in order.

One whose program takes turns has it at once, and answers it within the turn or after it, even if its input is closed
then. All others have it when their turn is over, as the next turn of the same conversation.
"""

import logging
from contextlib import suppress
from typing import Literal

from forkjoin.adapters.contract import Adapter
from forkjoin.adapters.registry import ADAPTERS
from forkjoin.core.error import CallerError, ForkjoinError, GitError, words_of
from forkjoin.core.event import Noted
from forkjoin.core.model import FINAL, RUNS, Agent, State
from forkjoin.core.session import Caller
from forkjoin.git import git
from forkjoin.git.refs import is_ancestor
from forkjoin.services import Services
from forkjoin.workspace.workspace import find_account

log = logging.getLogger(__name__)

#: Characters of a message that the log shows.
_WORDS = 200

#: Whether a message has reached the program, or is the beginning of another turn.
Delivery = Literal["now", "next_turn"]


async def tell(services: Services, caller: Caller, agent: Agent, text: str) -> tuple[Agent, Delivery]:
    """Record a message to an agent, and give it at once where that can be; the agent as it is then.

    Raises:
        CallerError: It can't be told; nothing was recorded.
    """
    before = await services.store.calls.answer_to(caller.call)
    number = before["mail"] if before else await _record(services, caller, agent, text)
    try:
        await deliver(services, await services.store.agents.get(agent.number))
    except (ForkjoinError, OSError) as error:  # it is recorded: the reconciler tries again
        log.warning("%s is told later: %s", agent.label, words_of(error))
    sent = await services.store.messages.was_sent(number)
    return await services.store.agents.get(agent.number), "now" if sent else "next_turn"


async def _record(services: Services, caller: Caller, agent: Agent, text: str) -> int:
    if agent.state in FINAL:
        await _check_not_reverted(services, agent)
    environment = services.environments.find_for_caller(caller)
    account = find_account(services, environment, agent.spec.agent, await services.store.projects.recipe(agent))
    return await services.store.messages.add(agent, text, caller.call, caller.environment, account)


async def _check_not_reverted(services: Services, agent: Agent) -> None:
    """See that what an agent adds can land: to git, a branch that was merged and reverted is merged."""
    if (revert := await services.store.merges.revert_of(agent)) is None:
        return
    target, commit = revert
    words = ("--fixed-strings", f"--grep=This reverts commit {commit}")
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    with suppress(GitError):  # one of these is gone
        if not await is_ancestor(common_dir, commit, target):
            return
        if not await git.output(common_dir, "log", "-1", "--format=%H", *words, f"{commit}..{target}", "--"):
            raise CallerError(
                f"The merge of {agent.label} was reverted, so that of its work only what is new would be merged. Take "
                f"that back first (git revert {commit[:10]}), or spawn a new agent."
            )


async def deliver(services: Services, agent: Agent) -> None:
    """Give an agent's program what waits for it, if it can take it. Doing so twice is harmless.

    Raises:
        OSError: There is no room for it; it waits on.
    """
    adapter = taker_of(services, agent)
    if adapter is None or not (agent.under_way and agent.state in (*RUNS, State.PAUSED)):
        return
    for message in await services.store.messages.waiting(agent):
        turn = adapter.turn(message.text, f"{agent.conversation} {message.number}")
        await services.store.messages.begin_sending(message)
        if not await services.executor.send(agent.handle, turn, once=True):
            return
        if await services.store.messages.set_sent(message, agent):
            await services.store.events.add(agent, [(Noted(f"told: {message.text[:_WORDS]}"), -1)])


def taker_of(services: Services, agent: Agent) -> Adapter | None:
    """The adapter of an agent whose program can be told something while it runs; none where the settings lost that."""
    program = services.settings.programs().get(agent.spec.agent or services.settings.default_agent)
    adapter = ADAPTERS[program.kind] if program else None
    return adapter if adapter and adapter.TAKES_TURNS else None
