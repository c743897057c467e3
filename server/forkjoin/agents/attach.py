"""A person goes on with an agent's conversation: its program ends first, for that, and nobody else goes on meanwhile.

They are there as long as their connection is. Then what their program has left running is ended, and an agent that was
under way goes on, in the same conversation. One that had ended stays so where they changed nothing; else it has one
more turn, by whose end its work is measured anew, unless it was stopped. After a restart of the daemon their command
comes back by itself.
"""

import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from forkjoin.adapters.registry import ADAPTERS
from forkjoin.agents.messages import tell
from forkjoin.agents.prepare import workplace_of
from forkjoin.agents.program_launch import brief_of, variables_of
from forkjoin.agents.retry import AFTER_PERSON
from forkjoin.agents.stop import end_processes
from forkjoin.core.agent_spec import number_of
from forkjoin.core.error import BrokenPromiseError, CallerError
from forkjoin.core.event import Noted
from forkjoin.core.model import FINAL, RUNS, Agent, Merge, Pause, State
from forkjoin.core.session import Caller
from forkjoin.git.worktrees.release_branches import free_others
from forkjoin.git.worktrees.worktree_folder import is_folder
from forkjoin.git.worktrees.worktree_snapshot import objects_aside, snapshot
from forkjoin.scheduling.gates import PERSON_ATTACHED, PERSON_LEFT
from forkjoin.services import Services
from forkjoin.workspace.agent_work import commit_loose, find_last, take_over

#: How the handle of what a person runs ends.
_PERSON = "-person"


class Going(NamedTuple):
    """What a person runs to go on with a conversation, in its worktree, in this environment."""

    argv: tuple[str, ...]
    environment: dict[str, str]


async def attach(services: Services, caller: Caller, agent: Agent, *, again: bool = False) -> tuple[Agent, Going]:
    """Keep an agent for a person; as it is once its program has ended, and what they run.

    Args:
        again: Whether they are in its conversation, and were so before this daemon, or connection.

    Raises:
        CallerError: They can't go on with it; nothing was changed.
    """
    program, brief = services.settings.program(agent.spec.agent), await brief_of(services, agent)
    run = ADAPTERS[program.kind].converse(brief, program)
    if run is None:
        raise CallerError(f"{agent.label} is a command, which has no conversation; read_log tells what it does.")
    answered = await services.store.has_answered(agent)
    agent = await services.store.changes.until(partial(_unless_led_out, services, agent.number))
    if why := _why_not(services, caller, agent, again=again):
        raise CallerError(f"{agent.label} {why}")
    if not answered:
        raise CallerError(f"{agent.label} has no conversation yet: no model has answered.")
    services.attached[agent.number] = caller
    agent = await services.store.changes.until(partial(_at_rest, services, agent.number))
    if why := _why_not(services, caller, agent, again=True):  # since it was looked at
        services.attached.pop(agent.number, None)
        raise CallerError(f"{agent.label} {why}")
    if not again:
        services.work_before_attach[agent.number] = await _look(services, agent)
    environment = services.environments.of_agent(agent) or caller.session.hello.environment
    workplace = await workplace_of(services, agent, environment)
    variables = await variables_of(workplace, agent, {**program.environment, **run.environment}, brief)
    return agent, Going(run.argv, {**variables, **await services.executor.mark(visit_handle(agent))})


def visit_handle(agent: Agent) -> str:
    """The handle of what a person runs in an agent's conversation, whichever its attempt is."""
    return f"{agent.id}{_PERSON}"


def _why_not(services: Services, caller: Caller, agent: Agent, *, again: bool) -> str | None:
    """Why nobody can be in this agent's conversation now; none where somebody can."""
    there = services.attached.get(agent.number)
    was_there = agent.pause.why == PERSON_ATTACHED or agent.number in services.attached_before_restart
    is_awaited = was_there and not there and time.time() < services.reattach_deadline
    is_taken = there and not there.session.closed and there.call.relay != caller.call.relay
    if is_taken or (is_awaited and not again):
        return "has a person in its conversation already."
    if agent.merge is Merge.QUEUED:
        return "is being merged; it has a conversation again once merge_worktree has answered."
    if agent.timing.removed or agent.removing or (agent.state in FINAL and not is_folder(Path(agent.worktree.path))):
        return "was removed, with its worktree; its log is kept (read_log)."
    return None


async def _at_rest(services: Services, number: int) -> Agent | None:
    """The agent, where nothing of it is under way and it says why; else it is brought to that, or comes to it."""
    agent = await services.store.agent(number)
    runs = agent.state in RUNS or agent.pause.frozen
    if agent.stop_asked and agent.state not in FINAL:
        return None
    if runs or (agent.state is State.PAUSED and agent.pause.why != PERSON_ATTACHED and not agent.pause.ending):
        pause = Pause(PERSON_ATTACHED, ending=runs, not_before=agent.pause.not_before)
        with suppress(BrokenPromiseError):  # it has moved since
            await services.store.move(agent, State.PAUSED, Noted(f"paused: {PERSON_ATTACHED}"), pause)
        return None
    return None if agent.under_way else agent


async def _unless_led_out(services: Services, number: int) -> Agent | None:
    """The agent, unless somebody is just being led out of its conversation."""
    agent, there = await services.store.agent(number), services.attached.get(number)
    return None if there and there.session.closed else agent


async def let_go(services: Services, number: int) -> None:
    """Let an agent go on whose person has left, once nothing of theirs runs any more."""
    caller = services.attached[number]
    await end_visit(services, await services.store.agent(number))
    agent = await services.store.agent(number)
    if agent.state is State.PAUSED and not agent.pause.ending:
        await services.store.move(
            agent, State.PAUSED, Noted(PERSON_LEFT), Pause(PERSON_LEFT, not_before=agent.pause.not_before)
        )
    elif agent.state in FINAL and not agent.timing.removed:
        await _settle(services, caller, agent)
    del services.attached[number]


async def end_visit(services: Services, agent: Agent) -> None:
    """End what a person has left running who was in the agent's conversation, if there was one."""
    handle = visit_handle(agent)
    if handle in await services.executor.handles():
        await end_processes(services, agent, [handle])
        await services.executor.forget(handle)


async def note_visits(services: Services) -> None:
    """Note in whose conversation somebody was when an earlier daemon ended."""
    persons = [handle for handle in await services.executor.handles() if handle.endswith(_PERSON)]
    services.attached_before_restart.update(
        number for handle in persons if (number := number_of(handle.removesuffix(_PERSON)))
    )


async def end_visits(services: Services) -> None:
    """End what those have left running who have not come back, once it is too late for that."""
    while services.attached_before_restart and time.time() >= services.reattach_deadline:
        if (number := services.attached_before_restart.pop()) not in services.attached:
            agent = await services.store.agent(number)
            await end_visit(services, agent)
            if agent.state in FINAL and not agent.timing.removed:
                await _free_others(services, agent)


async def _free_others(services: Services, agent: Agent) -> None:
    """Detach the worktree of an agent that has ended from other branches, as at its end."""
    common_dir = (await services.store.project_numbered(agent.project)).common_dir
    said = await free_others(common_dir, Path(agent.worktree.path), agent.worktree.branch, agent.slug)
    await services.store.note(agent, [(Noted(words), -1) for words in said])


async def _look(services: Services, agent: Agent) -> str | None:
    """The commit of all that is in its worktree, which is made aside; none where that can't be read."""
    common_dir = (await services.store.project_numbered(agent.project)).common_dir
    with objects_aside(common_dir, services.home.aside) as aside:
        return await snapshot(common_dir, Path(agent.worktree.path), aside, await services.store.set_up_files(agent))


async def _settle(services: Services, caller: Caller, agent: Agent) -> None:
    """Commit what a person has left of one that had ended, and changed; where that is news, it has another turn."""
    found = services.work_before_attach.pop(agent.number, None)
    if found and found == await _look(services, agent):
        await _free_others(services, agent)
        return
    common_dir = (await services.store.project_numbered(agent.project)).common_dir
    message = f"Work of a person with {agent.label}\n\nForkjoin-Agent: {agent.id}"
    left = await commit_loose(services.store, common_dir, agent, message)
    await _free_others(services, agent)
    if left.tip is None or await find_last(services.store, agent) == left.tip:
        return
    if not agent.stop_asked:
        try:
            await tell(services, caller, agent, AFTER_PERSON)
            return
        except CallerError as error:
            await services.store.note(agent, [(Noted(f"{PERSON_LEFT}, and changed its work: {error}"), -1)])
    await take_over(services.store, common_dir, agent, left.tip, "A person has changed its work since its end.")
