"""Admission: which agent or person is calling, and which project the call is for."""

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

#: How long a session waits to be admitted before it is let in: less than its hello may take.
_LEND_S = 5.0
#: The handles of an agent's program, and of a person in its conversation; those of other commands go on.
_PROGRAM = re.compile(r"a([1-9]\d*)-(?:\d+|person)")
#: The handles of commands that are run for an agent.
_FOR_AGENT = re.compile(r"a([1-9]\d*)-\d+-(.+)")


async def welcome(services: Services, session: Session) -> None:
    """Identify the caller, and lend a lead's environment to its waiting agents.

    Raises:
        CallerError: It may not call at all, or claims to be an agent that it is not.
    """
    session.agent = await _find_agent(services, session)
    if session.agent is None:
        with suppress(ForkjoinError), move_on_after(_LEND_S):  # each call of a tool does it again, and tells why not
            await admit(services, session, session.lead(""))


async def _find_agent(services: Services, session: Session) -> Agent | None:
    """Return the calling agent, found by its process, or else by its token.

    A token alone is enough: a container's processes are of no attempt, and a token only takes rights away.
    """
    handle, token = session.attempt, session.hello.token
    program = _PROGRAM.fullmatch(handle) if handle else None
    if token == NO_RIGHTS or (handle and not program):
        await _refuse_command(services, handle or "")
    shown = await services.store.agents.of_token(digest_of(token)) if token else None
    owner = await _agent(services, program[1]) if program else None
    if token and shown is None:
        raise CallerError(
            "FORKJOIN_TOKEN is set to what is no agent's token here. Agents' programs get theirs from forkjoin; "
            "if you are none, unset it and call again."
        )
    if owner and shown and owner.number != shown.number:
        await note_refused(services, owner, f"to call as {shown.id}")
        raise CallerError(f"This process belongs to {owner.label}, and it shows the token of another agent.")
    return owner or shown


async def _refuse_command(services: Services, handle: str) -> None:
    """Raise the CallerError for a command that only prepares or checks work."""
    if found := _FOR_AGENT.fullmatch(handle):
        await note_refused(services, await _agent(services, found[1]), f"to call from its {found[2]}")
    whose = handle or "as its FORKJOIN_TOKEN tells"
    raise CallerError(
        f"This process belongs to a command such as setup or verify ({whose}). Such commands "
        "can't call forkjoin. Nothing was changed."
    )


async def _agent(services: Services, number: str) -> Agent:
    found = await services.store.agents.get_all([int(number)])
    if not found:
        raise CallerError(f"This process belongs to a{number}, of which there is no record: it can't call forkjoin.")
    return found[0]


async def note_refused(services: Services, agent: Agent, what: str) -> None:
    """Record a refused call once per attempt, so that the agent's result warns of it."""
    with suppress(RecordsError):  # it is refused all the same
        if what not in await services.store.events.refusals(agent):
            await services.store.events.add(agent, [(Refused(what), -1)])


async def admit(services: Services, session: Session, lead: str) -> tuple[Project, str]:
    """Let a session in, and its lead's agents use its environment; the project it stands in, and the digest of that."""
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
    """Return the project that a folder is in.

    One that is recorded is found by its files alone: agents can be stopped where git can't read the repository.
    """
    found = await to_thread.run_sync(find_common_dir, folder)
    known = await services.store.projects.find(_as_text(found)) if found else None
    return known or await services.store.projects.get_or_add(_as_text((await read_checkout(folder)).common_dir))


def _as_text(common_dir: str) -> str:
    """Return the folder as text. It is recorded and shown to models."""
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
            f"{agent.worktree.path} is no worktree of {project.common_dir} any more; nothing was changed."
        )
    return project
