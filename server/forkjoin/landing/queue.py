"""Asking for a merge: what is to land where is recorded, and the landing waits for its turn."""

from collections.abc import Sequence

from forkjoin.branch import git
from forkjoin.branch.repository import Checkout, look
from forkjoin.config import Recipe
from forkjoin.error import CallerError
from forkjoin.landing.answer import LANDED, Landed
from forkjoin.model import Agent, Landing
from forkjoin.record.rows import NewLanding
from forkjoin.record.store import Store
from forkjoin.session import Caller


async def enqueue(
    store: Store,
    caller: Caller,
    agents: Sequence[Agent],
    into: str | None,
    verify: str | None,
    recipe: Recipe,
    *,
    dry_run: bool,
) -> Landing:
    """Record a landing of these agents' branches, in this order."""
    if (before := await store.answered(caller.call)) is not None:
        return await store.landing(before["landing"])
    checkout = await look(caller.session.folder)
    new = NewLanding(
        project=caller.project.number,
        lead=caller.lead,
        agents=tuple(dict.fromkeys(agent.number for agent in agents)),
        target=await _find_target(checkout, into),
        verify=verify,
        dry_run=dry_run,
        environment=caller.environment,
        checkout=checkout.top or "",
        recipe=recipe,
    )
    return await store.add_landing(new, caller.call)


async def _find_target(checkout: Checkout, into: str | None) -> str:
    """The full name of the branch to land on."""
    if into is None:
        if checkout.branch is None:
            raise CallerError("HEAD is detached here, so there is no branch to merge into; name one in `into`.")
        return checkout.branch
    found = await git.find_branch(checkout.common_dir, into.removeprefix("refs/heads/"))
    if found is None:
        raise CallerError(f"into: there is no branch {into[:100]!r} in this repository.")
    return found


async def wait_until_landed(store: Store, landing: Landing) -> Landed:
    """What became of a landing, once it is done."""

    async def look() -> str | None:
        return (await store.landing(landing.number)).answer

    answer = LANDED.validate_json(await store.changes.until(look))
    if answer.error:
        raise CallerError(answer.error)
    return answer
