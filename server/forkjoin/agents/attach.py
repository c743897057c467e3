"""Attaching a person, who continues an agent's conversation in a terminal while the agent's own program does not run.

A person is attached until their connection closes, or the daemon ends. Then forkjoin ends everything that the person
left running. An agent that was running before continues its conversation. An agent that had ended before gets another
attempt if the person changed its work, unless it was stopped.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from forkjoin.adapters.registry import ADAPTERS
from forkjoin.agents.message_delivery import send_message
from forkjoin.agents.prepare import workspace_of
from forkjoin.agents.program_launch import agent_context, program_environment
from forkjoin.agents.retry import AFTER_PERSON
from forkjoin.agents.stop import end_processes
from forkjoin.core.agent_spec import number_of
from forkjoin.core.error import BrokenPromiseError, CallerError
from forkjoin.core.event import Noted
from forkjoin.core.model import FINAL, RUNS, Agent, Merge, Pause, PauseKind, PauseReason, State
from forkjoin.core.session import Caller
from forkjoin.git.objects import temporary_objects
from forkjoin.git.worktrees.release_branches import release_other_branches
from forkjoin.git.worktrees.worktree_folder import is_folder
from forkjoin.git.worktrees.worktree_snapshot import snapshot
from forkjoin.services import Attachment, Services
from forkjoin.workspace.agent_work import accept_commit, commit_uncommitted, find_result_commit

#: The suffix of the handle to which the processes of an attached person belong.
_PERSON = "-person"


class PersonProgram(NamedTuple):
    """The command that `forkjoin attach` runs in the person's terminal, and its environment."""

    argv: tuple[str, ...]
    environment: dict[str, str]


async def attach(services: Services, caller: Caller, agent: Agent) -> tuple[Agent, PersonProgram]:
    """Ask an agent's program to end, and attach a person once it has ended.

    Returns:
        The agent as it is afterwards, and the program for the person to run.

    Raises:
        CallerError: The agent has no conversation, is being merged or was removed, or somebody else is attached.
    """
    program, context = services.settings.program(agent.spec.agent), await agent_context(services, agent)
    run = ADAPTERS[program.kind].converse(context, program)
    if run is None:
        raise CallerError(f"{agent.label} is a command, which has no conversation. Call read_log to see what it does.")
    answered = await services.store.events.has_answered(agent)
    agent = await services.store.changes.until(partial(_agent_unless_detaching, services, agent.number))
    _check_attachable(services, caller, agent)
    if not answered:
        raise CallerError(f"{agent.label} has no conversation yet, since no model has answered. Try again later.")
    attachment = services.attached[agent.number] = Attachment(caller)
    agent = await services.store.changes.until(partial(_pause_for_person, services, agent.number))
    try:
        _check_attachable(services, caller, agent)  # it may have been merged or removed while its program ended
    except CallerError:
        services.attached.pop(agent.number, None)
        raise
    await end_person_program(services, agent)
    attachment.work_before = await _snapshot(services, agent)
    environment = services.environments.find_for_agent(agent) or caller.session.hello.environment
    workspace = await workspace_of(services, agent, environment)
    variables = await program_environment(workspace, agent, {**program.environment, **run.environment}, context)
    mark = await services.executor.mark_variables(person_handle(agent))
    return agent, PersonProgram(run.argv, {**variables, **mark})


def person_handle(agent: Agent) -> str:
    """Return the handle of a person's program.

    It does not depend on the agent's attempt.
    """
    return f"{agent.id}{_PERSON}"


def _check_attachable(services: Services, caller: Caller, agent: Agent) -> None:
    """Raise a CallerError if no person can attach to the agent now."""
    attachment = services.attached.get(agent.number)
    other = attachment.caller if attachment and not attachment.is_over else None
    if other and other.call.relay != caller.call.relay:
        raise CallerError(f"A person is attached to {agent.label} already. Try again once that person has left.")
    if agent.merge is Merge.QUEUED:
        raise CallerError(f"{agent.label} is being merged. Try again once merge_worktree has answered.")
    if agent.timing.removed or agent.removing or (agent.state in FINAL and not is_folder(Path(agent.worktree.path))):
        raise CallerError(f"{agent.label} was removed, with its worktree. Call read_log to see its log.")


async def _agent_unless_detaching(services: Services, number: int) -> Agent | None:
    """Return the agent, or `None` while a person who left is being detached."""
    agent, attachment = await services.store.agents.get(number), services.attached.get(number)
    return None if attachment and attachment.is_over else agent


async def _pause_for_person(services: Services, number: int) -> Agent | None:
    """Pause the agent for a person, which asks its program to end.

    Return the agent if no program of it runs or is about to, else `None`: the caller calls again.
    """
    agent = await services.store.agents.get(number)
    runs = agent.phase in (*RUNS, PauseKind.FROZEN)
    if agent.stop_asked and agent.state not in FINAL:
        return None
    rests = agent.phase is PauseKind.RESTING and agent.pause.reason is not PauseReason.PERSON_ATTACHED
    if runs or rests:
        kind = PauseKind.ENDING if runs else PauseKind.RESTING
        pause = Pause(PauseReason.PERSON_ATTACHED, kind=kind, not_before=agent.pause.not_before)
        with suppress(BrokenPromiseError):  # the agent's state has changed since it was read; the next call decides
            await services.store.lifecycle.move(agent, State.PAUSED, Noted(f"paused: {pause.why}"), pause)
        return None
    return None if agent.under_way else agent


async def find_interrupted_attachments(services: Services) -> None:
    """Note the persons who were attached when an earlier daemon ended.

    The reconciler then detaches them, as if they had left.
    """
    persons = [handle for handle in await services.executor.list_handles() if handle.endswith(_PERSON)]
    numbers = [number for handle in persons if (number := number_of(handle.removesuffix(_PERSON)))]
    for agent in await services.store.agents.get_all(numbers):
        if not agent.removing:  # a removal that continues ends the person's program by itself
            services.attached.setdefault(agent.number, Attachment(None))


async def detach(services: Services, number: int) -> None:
    """End the processes of a person who left, then let the agent continue.

    If the agent had ended, commit the person's changes instead, and give the agent another attempt if there are any.
    """
    attachment = services.attached[number]
    await end_person_program(services, await services.store.agents.get(number))
    agent = await services.store.agents.get(number)
    if agent.phase is PauseKind.RESTING:
        pause = Pause(PauseReason.PERSON_LEFT, not_before=agent.pause.not_before)
        await services.store.lifecycle.move(agent, State.PAUSED, Noted(pause.why), pause)
    elif agent.state in FINAL and not agent.timing.removed:
        await _take_over_work(services, attachment, agent)
    del services.attached[number]


async def end_person_program(services: Services, agent: Agent) -> None:
    """End all processes that a person left running in the agent's conversation."""
    handle = person_handle(agent)
    if handle in await services.executor.list_handles():
        await end_processes(services, agent, [handle])
        await services.executor.forget(handle)


async def _take_over_work(services: Services, attachment: Attachment, agent: Agent) -> None:
    """Commit the changes that a person made after the agent's end.

    If the branch has a new commit, the agent gets a message that starts another attempt. If it can't get one, or was
    stopped, the commit is recorded in its result.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    is_unchanged = attachment.work_before and attachment.work_before == await _snapshot(services, agent)
    tip = None
    if not is_unchanged:
        message = f"Work of a person with {agent.label}\n\nForkjoin-Agent: {agent.id}"
        tip = (await commit_uncommitted(services.store, common_dir, agent, message)).tip
    freed = await release_other_branches(common_dir, Path(agent.worktree.path), agent.worktree.branch, agent.slug)
    await services.store.events.add(agent, [(Noted(words), -1) for words in freed])
    if tip is None or await find_result_commit(services.store, agent) == tip:
        return
    if attachment.caller and not agent.stop_asked:
        try:
            await send_message(services, attachment.caller, agent, AFTER_PERSON)
            return
        except CallerError as error:
            words = f"{PauseReason.PERSON_LEFT.sentence}, and changed its work: {error}"
            await services.store.events.add(agent, [(Noted(words), -1)])
    await accept_commit(
        services.store,
        common_dir,
        agent,
        tip,
        "A person changed its work after its end, and verify has not seen the changes.",
    )


async def _snapshot(services: Services, agent: Agent) -> str | None:
    """Return the id of a commit of the whole worktree, or `None` if git can't read it.

    The commit's objects are in a temporary folder and are deleted: the id only serves for a comparison.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    with temporary_objects(common_dir, services.home.aside) as aside:
        return await snapshot(
            common_dir, Path(agent.worktree.path), aside, await services.store.baselines.setup_files(agent)
        )
