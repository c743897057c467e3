"""Who is let in, and where they stand: an agent's program by its token, and whoever is at work in a repository."""

from contextlib import suppress

from anyio import to_thread

from forkjoin.branch import git
from forkjoin.branch.repository import look
from forkjoin.branch.shared_config import accept_as_found, accepted_file
from forkjoin.error import CallerError, ForkjoinError
from forkjoin.model import Agent, Project
from forkjoin.rooms import Rooms
from forkjoin.session import Session, digest_of


async def welcome(rooms: Rooms, session: Session) -> None:
    """A connection is there: what waits for its lead's environment may use this one.

    Raises:
        CallerError: It shows a token that is no agent's.
    """
    if not session.hello.token:
        with suppress(ForkjoinError):
            await admit(rooms, session, session.lead(""))
        return
    session.agent = await rooms.store.agent_of_token(digest_of(session.hello.token))
    if session.agent is None:
        raise CallerError(
            "FORKJOIN_TOKEN is set to what is no agent's token here. Agents' programs get theirs from forkjoin; "
            "if you are none, unset it and call again."
        )


async def admit(rooms: Rooms, session: Session, lead: str) -> tuple[Project, str]:
    """Let a session in, and its lead's agents use its environment; the project it stands in, and the digest of that."""
    rooms.connected.add(session)
    common_dir = (await look(session.folder)).common_dir
    if session.agent:
        return await _project_of(rooms, session.agent, session, common_dir), session.agent.environment
    project = await rooms.store.project(common_dir)
    await git.trust_as_found(project.common_dir)
    accepted = accepted_file(rooms.home, project.common_dir)
    await to_thread.run_sync(accept_as_found, accepted, project.common_dir)
    digest = rooms.environments.keep(session.hello.environment)
    if rooms.environments.lend(project.number, lead, digest):
        rooms.store.changes.announce()
    return project, digest


async def _project_of(rooms: Rooms, agent: Agent, session: Session, common_dir: str) -> Project:
    """The project that an agent's program stands in: its own, whatever that has made of its worktree."""
    if session.is_command_line:
        return await rooms.store.project(common_dir)
    project = await rooms.store.project_numbered(agent.project)
    if project.common_dir != common_dir:
        raise CallerError(f"{agent.worktree} is no worktree of {project.common_dir} any more; nothing was changed.")
    return project
