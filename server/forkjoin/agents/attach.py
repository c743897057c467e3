"""Attaching: a person continues an agent's conversation in the terminal, while the agent's own program is not running.

A person is attached as long as their connection lasts. Then everything that they left running is ended. An agent that
was running continues its conversation. An agent that had ended gets another attempt if the person changed its work,
unless it was stopped. The end of the daemon ends the attachment, too.
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

#: The suffix of the handle under which a person's program runs.
_PERSON = "-person"


class PersonProgram(NamedTuple):
    """The command and environment of an attached person's program."""

    argv: tuple[str, ...]
    environment: dict[str, str]


async def attach(services: Services, caller: Caller, agent: Agent) -> tuple[Agent, PersonProgram]:
    """Attach a person to an agent, once the agent's program has ended.

    Returns:
        The agent as it is then, and the program for the person to run.

    Raises:
        CallerError: The agent has no conversation, or somebody else is attached. Nothing was changed.
    """
    program, brief = services.settings.program(agent.spec.agent), await agent_context(services, agent)
    run = ADAPTERS[program.kind].converse(brief, program)
    if run is None:
        raise CallerError(f"{agent.label} is a command, which has no conversation; read_log shows what it does.")
    answered = await services.store.events.has_answered(agent)
    agent = await services.store.changes.until(partial(_agent_unless_detaching, services, agent.number))
    _check_attachable(services, caller, agent)
    if not answered:
        raise CallerError(f"{agent.label} has no conversation yet: no model has answered. Try again later.")
    attachment = services.attached[agent.number] = Attachment(caller)
    agent = await services.store.changes.until(partial(_pause_for_person, services, agent.number))
    try:
        _check_attachable(services, caller, agent)  # it may have changed meanwhile
    except CallerError:
        services.attached.pop(agent.number, None)
        raise
    await end_person_program(services, agent)
    attachment.work_before = await _snapshot(services, agent)
    environment = services.environments.find_for_agent(agent) or caller.session.hello.environment
    workspace = await workspace_of(services, agent, environment)
    variables = await program_environment(workspace, agent, {**program.environment, **run.environment}, brief)
    mark = await services.executor.mark_variables(person_handle(agent))
    return agent, PersonProgram(run.argv, {**variables, **mark})


def person_handle(agent: Agent) -> str:
    """Return the handle of a person's program, which is the same for every attempt."""
    return f"{agent.id}{_PERSON}"


def _check_attachable(services: Services, caller: Caller, agent: Agent) -> None:
    """Raise a CallerError if no person can attach to the agent now."""
    attachment = services.attached.get(agent.number)
    other = attachment.caller if attachment and not attachment.is_over else None
    if other and other.call.relay != caller.call.relay:
        raise CallerError(f"{agent.label} has a person in its conversation already.")
    if agent.merge is Merge.QUEUED:
        raise CallerError(f"{agent.label} is being merged. Try again once merge_worktree has answered.")
    if agent.timing.removed or agent.removing or (agent.state in FINAL and not is_folder(Path(agent.worktree.path))):
        raise CallerError(f"{agent.label} was removed, with its worktree; read_log shows its log.")


async def _agent_unless_detaching(services: Services, number: int) -> Agent | None:
    """Return the agent, or `None` while a person who left is being detached."""
    agent, attachment = await services.store.agents.get(number), services.attached.get(number)
    return None if attachment and attachment.is_over else agent


async def _pause_for_person(services: Services, number: int) -> Agent | None:
    """Ask the agent's program to end.

    Return the agent once nothing of it is under way, else `None`.
    """
    agent = await services.store.agents.get(number)
    runs = agent.phase in (*RUNS, PauseKind.FROZEN)
    if agent.stop_asked and agent.state not in FINAL:
        return None
    rests = agent.phase is PauseKind.RESTING and agent.pause.reason is not PauseReason.PERSON_ATTACHED
    if runs or rests:
        kind = PauseKind.ENDING if runs else PauseKind.RESTING
        pause = Pause(PauseReason.PERSON_ATTACHED, kind=kind, not_before=agent.pause.not_before)
        with suppress(BrokenPromiseError):  # its state has changed meanwhile
            await services.store.lifecycle.move(agent, State.PAUSED, Noted(f"paused: {pause.why}"), pause)
        return None
    return None if agent.under_way else agent


async def find_interrupted_attachments(services: Services) -> None:
    """Record attachments that the end of an earlier daemon interrupted.

    The reconciler then detaches these persons as if they had left.
    """
    persons = [handle for handle in await services.executor.list_handles() if handle.endswith(_PERSON)]
    numbers = [number for handle in persons if (number := number_of(handle.removesuffix(_PERSON)))]
    for agent in await services.store.agents.get_all(numbers):
        if not agent.removing:  # the removal ends the program itself
            services.attached.setdefault(agent.number, Attachment(None))


async def detach(services: Services, number: int) -> None:
    """End the processes of a person who left, then let the agent continue."""
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

    If the branch has a new commit, the agent gets another attempt, unless it was stopped.
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
    await accept_commit(services.store, common_dir, agent, tip, "A person has changed its work since its end.")


async def _snapshot(services: Services, agent: Agent) -> str | None:
    """Return a commit of everything in the worktree, or `None` if git can't read it.

    The commit is made outside of the repository's object store.
    """
    common_dir = (await services.store.projects.get(agent.project)).common_dir
    with temporary_objects(common_dir, services.home.aside) as aside:
        return await snapshot(
            common_dir, Path(agent.worktree.path), aside, await services.store.baselines.setup_files(agent)
        )
