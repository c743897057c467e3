"""The command, input and environment with which an agent's program starts."""

from collections.abc import Mapping

from anyio import to_thread

from forkjoin.adapters.contract import AgentContext
from forkjoin.adapters.registry import ADAPTERS
from forkjoin.agents.prepare import issue_token, workspace_of
from forkjoin.core.agent_spec import Permissions
from forkjoin.core.atomic_write import write_atomically
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.git.commit_identity import find_fallback_identity
from forkjoin.git.worktrees.worktree_folder import git_folder
from forkjoin.process.attempt_spec import AttemptSpec
from forkjoin.services import Services
from forkjoin.store.rows import About, columns
from forkjoin.workspace.workspace import Workspace


async def make_attempt_spec(services: Services, agent: Agent, environment: Mapping[str, str]) -> AttemptSpec:
    """Return what the executor runs as a prepared agent's newest attempt.

    The program resumes the conversation if a message waits for the attempt. Otherwise it starts with the task.

    Args:
        environment: The environment of the agent's lead.
    """
    program, context = services.settings.program(agent.spec.agent), await agent_context(services, agent)
    adapter, workspace = ADAPTERS[program.kind], await workspace_of(services, agent, environment)
    message = await services.store.messages.prompt(agent)
    run = (adapter.resume(context, program, message) if message else None) or adapter.start(context, program)
    limits = services.settings.limits
    added = {**program.environment, **run.environment}
    minutes = agent.spec.timeout_minutes or limits.timeout_minutes
    silence = agent.spec.silence_minutes or limits.silence_minutes
    return AttemptSpec(
        handle=agent.handle,
        argv=run.argv,
        cwd=agent.worktree.path,
        environment=await program_environment(workspace, agent, added, context),
        input=run.input,
        input_complete=run.closed,
        timeout_s=minutes * 60 if minutes else None,
        silence_s=silence * 60 if silence else None,
        log_bytes=limits.log_bytes,
        keep_unread_output=adapter.MAKES_EVENTS,
        limits=limits.per_agent,
        about=await _about(services, agent, workspace),
    )


async def agent_context(services: Services, agent: Agent) -> AgentContext:
    """Return everything that the adapter needs to know about a prepared agent."""
    task = "\n\n".join(
        [await services.store.agents.task(agent.number), *await services.store.messages.delivered(agent)]
    )
    return AgentContext(
        id=agent.id,
        name=agent.name,
        task=task,
        branch=agent.worktree.branch,
        worktree=agent.worktree.path,
        checkout=agent.worktree.checkout,
        model=agent.spec.model,
        conversation=agent.conversation,
        permissions=(agent.spec.permissions or Permissions()).over(services.settings.permissions),
        budget_usd=max(0.0, agent.money.reserved_usd - agent.money.spent_usd) if agent.money.reserved_usd else None,
        relay=services.relay_command,
    )


async def program_environment(
    workspace: Workspace, agent: Agent, added: Mapping[str, str], context: AgentContext
) -> dict[str, str]:
    """Return the environment of the agent's program.

    Args:
        workspace: The agent's workspace, with the environment of its lead.
        added: Variables from the settings and from the adapter.
        context: What the adapter was told of the agent. The program finds its task in a file.
    """
    ours = {
        "FORKJOIN_TOKEN": await issue_token(workspace.services, agent),
        "FORKJOIN_TASK_FILE": await _write_task(workspace, agent, context.task),
        **await find_fallback_identity(agent.worktree.path),
    }
    return await workspace.compose(added, ours)


async def _about(services: Services, agent: Agent, workspace: Workspace) -> dict[str, object]:
    """Return the data from which a lost record of the agent can be restored.

    The attempt's folder keeps it as `about.json`.
    """
    spec = {**agent.spec.model_dump(exclude_defaults=True), "task": await services.store.agents.task(agent.number)}
    recipe = workspace.repository_settings.model_dump(exclude_defaults=True)
    about = About.model_validate({**columns(agent), "project": workspace.common_dir, "spec": spec, "recipe": recipe})
    return {"agent": agent.number, "attempt": agent.attempt, **about.model_dump(mode="json", exclude_defaults=True)}


async def _write_task(workspace: Workspace, agent: Agent, task: str) -> str:
    """Write the task to a file in the worktree's own git folder. Return its path.

    No commit includes the files of this folder.
    """
    folder = await to_thread.run_sync(git_folder, workspace.common_dir, workspace.path)
    if folder is None:
        raise CallerError(f"git doesn't know the worktree of {agent.label} any more. Spawn a new agent.")
    await to_thread.run_sync(write_atomically, folder / "forkjoin-task", task.encode())
    return str(folder / "forkjoin-task")
