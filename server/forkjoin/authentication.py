"""Authentication: who is calling, a lead, a person or an agent, and from which project."""

import re
from contextlib import suppress
from pathlib import Path

from anyio import move_on_after, to_thread

from forkjoin.core.error import CallerError, ForkjoinError, RecordsError
from forkjoin.core.event import Refused
from forkjoin.core.model import Agent, Project
from forkjoin.core.session import NO_RIGHTS, Session, digest_of
from forkjoin.git.config_snapshot import accept_as_found, accepted_file
from forkjoin.git.file_names import printable
from forkjoin.git.git_config import trust_existing_entries
from forkjoin.git.git_folder import find_common_dir
from forkjoin.git.repository import read_checkout
from forkjoin.services import Services

#: Seconds after which a connection is accepted although its project is not known yet. A hello may take longer.
_REGISTER_S = 5.0
#: The handle of an agent's program, or of the program of a person who is attached to the agent.
_PROGRAM = re.compile(r"a([1-9]\d*)-(?:\d+|person)")
#: The handle of a command that runs for an agent, such as setup or verify.
_FOR_AGENT = re.compile(r"a([1-9]\d*)-\d+-(.+)")


async def authenticate(services: Services, session: Session) -> None:
    """Find out whether an agent is calling, and register other sessions.

    Raises:
        CallerError: The process may not call forkjoin, or shows the token of another agent.
    """
    session.agent = await _find_agent(services, session)
    if session.agent is None:
        with suppress(ForkjoinError), move_on_after(_REGISTER_S):  # each tool call tries again, and reports the error
            await admit(services, session, session.lead(""))


async def _find_agent(services: Services, session: Session) -> Agent | None:
    """Return the calling agent, found by its process or else by its token, or `None`.

    A token alone is enough, since processes in containers can't be assigned to an attempt. A token never adds rights.
    """
    handle, token = session.attempt, session.hello.token
    program = _PROGRAM.fullmatch(handle) if handle else None
    if token == NO_RIGHTS or (handle and not program):
        await _refuse_command(services, handle or "")
    shown = await services.store.agents.of_token(digest_of(token)) if token else None
    owner = await _agent(services, program[1]) if program else None
    if token and shown is None:
        raise CallerError(
            "FORKJOIN_TOKEN is not the token of an agent here. forkjoin sets it for agents' programs. Outside of an "
            "agent, unset it and call again."
        )
    if owner and shown and owner.number != shown.number:
        await record_refused_call(services, owner, f"to call as {shown.id}")
        raise CallerError(f"This process belongs to {owner.label}, but shows the token of another agent.")
    return owner or shown


async def _refuse_command(services: Services, handle: str) -> None:
    """Raise the CallerError for a command such as setup or verify.

    Record the call for its agent.
    """
    if found := _FOR_AGENT.fullmatch(handle):
        await record_refused_call(services, await _agent(services, found[1]), f"to call from its {found[2]}")
    command = handle or "known by its FORKJOIN_TOKEN"
    raise CallerError(
        f"This process belongs to a command such as setup or verify ({command}). Such commands "
        "can't call forkjoin. Nothing was changed."
    )


async def _agent(services: Services, number: str) -> Agent:
    found = await services.store.agents.get_all([int(number)])
    if not found:
        raise CallerError(
            f"This process belongs to a{number}, which has no record any more, so it can't call forkjoin."
        )
    return found[0]


async def record_refused_call(services: Services, agent: Agent, what: str) -> None:
    """Record a refused call once per attempt, so that the agent's result warns of it."""
    with suppress(RecordsError):  # the call is refused anyway
        if what not in await services.store.events.refusals(agent):
            await services.store.events.add(agent, [(Refused(what), -1)])


async def admit(services: Services, session: Session, lead: str) -> tuple[Project, str]:
    """Register a session, and make its environment the current one of its lead.

    Args:
        lead: The name of the session's lead in the project.

    Returns:
        The project, and the digest of the environment. For an agent's session these are the agent's own.
    """
    services.project_sessions.add(session)
    project = await _find_project(services, session.folder)
    if session.agent:
        return await _project_of(services, session.agent, project), session.agent.environment
    await trust_existing_entries(project.common_dir)
    accepted = accepted_file(services.home, project.common_dir)
    await to_thread.run_sync(accept_as_found, accepted, project.common_dir)
    digest = services.environments.add(session.hello.environment)
    if services.environments.set_current(project.number, lead, digest):
        services.store.changes.announce()
    return project, digest


async def _find_project(services: Services, folder: Path) -> Project:
    """Return the project that contains a folder.

    A recorded project is found without calling git, so that agents can be stopped even if git fails.
    """
    found = await to_thread.run_sync(find_common_dir, folder)
    known = await services.store.projects.find(_as_text(found)) if found else None
    return known or await services.store.projects.get_or_add(_as_text((await read_checkout(folder)).common_dir))


def _as_text(common_dir: str) -> str:
    """Return the path, or raise a CallerError if it is not valid UTF-8."""
    try:
        common_dir.encode()
    except UnicodeEncodeError:
        raise CallerError(
            f"{printable(common_dir)} has bytes in its path that are not valid UTF-8. Rename it, then call again."
        ) from None
    return common_dir


async def _project_of(services: Services, agent: Agent, found: Project) -> Project:
    """Return the agent's own project, even if its program damaged the worktree."""
    project = await services.store.projects.get(agent.project)
    if project != found:
        raise CallerError(
            f"{agent.worktree.path} is not a worktree of {project.common_dir} any more. Nothing was changed."
        )
    return project
