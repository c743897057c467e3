"""Who has asked for a landing, where that is an agent: it runs in its environment, and ends with it."""

from forkjoin.error import CallerError
from forkjoin.model import Agent, Landing, LandingState, State
from forkjoin.rooms import Rooms


async def find_environment(rooms: Rooms, landing: Landing) -> dict[str, str] | None:
    """The environment of whoever asked for it; none where a restart has lost that."""
    asker = await _find_asker(rooms, landing)
    return rooms.environments.find(landing.environment, landing.project, asker.root_lead if asker else landing.lead)


async def lacks_environment(rooms: Rooms, landing: Landing) -> bool:
    """Whether it must wait for what its verify runs in. A move in midst is settled without, as is what is refused."""
    runs_verify = landing.verify and not landing.dry_run and landing.state is LandingState.QUEUED
    if not runs_verify or await find_environment(rooms, landing) is not None:
        return False
    asker = await _find_asker(rooms, landing)
    return asker is None or not _is_refused(asker)


async def check_asker(rooms: Rooms, landing: Landing) -> None:
    """See that it may move its target.

    Raises:
        CallerError: The agent that has asked for it is at its end.
    """
    asker = await _find_asker(rooms, landing)
    if asker and _is_refused(asker):
        raise CallerError(f"{asker.label} is at its end ({asker.state}): nothing more is merged into its branch.")


async def _find_asker(rooms: Rooms, landing: Landing) -> Agent | None:
    return next(iter(await rooms.store.agents_numbered([landing.asker] if landing.asker else [])), None)


def _is_refused(asker: Agent) -> bool:
    return asker.is_over or asker.state is State.FINISHING
