"""Spawning: specs are checked, ids handed out, and all of it is on disk in one transaction before the answer."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from forkjoin.adapters.registry import ADAPTERS
from forkjoin.agents.candidates import Entrant, expand
from forkjoin.agents.dependencies import Dependencies, find_dependencies
from forkjoin.agents.nested_spawns import check_grant, split_budget
from forkjoin.core.agent_spec import Permissions, Spec, slug
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.core.session import Caller
from forkjoin.core.settings import Recipe, Settings
from forkjoin.git.branch_names import find_naming_scheme
from forkjoin.git.refs import resolve_commit
from forkjoin.git.repository import Checkout, read_checkout
from forkjoin.services import Services
from forkjoin.store.rows import NewAgent
from forkjoin.workspace.repository_config import find_trusted_recipe
from forkjoin.workspace.workspace import find_account

#: Characters that the name of a model may have: here, since what is on disk is read whatever it holds.
_MODEL = 200


@dataclass(frozen=True, slots=True)
class Spawned:
    agents: list[Agent]
    note: str | None  #: what the lead should know of where they start


async def spawn(services: Services, caller: Caller, specs: Sequence[Spec], *, keep: bool = True) -> Spawned:
    """Record agents for these specs, all or none.

    Args:
        keep: Whether they are recorded; else all is checked alike, and the agents are only as they would be.
    """
    store, home = services.store, services.home
    if (before := await store.calls.answer_to(caller.call)) is not None:
        return Spawned([await store.agents.get(number) for number in before["agents"]], None)
    checkout = await read_checkout(caller.session.folder, check_dirty=True)
    wanted = expand(specs)
    _check(checkout, services, wanted)
    parent = caller.session.agent
    if parent:
        recipe, untrusted = await store.projects.recipe(parent), None
    else:
        names_verify = all(one.spec.verify is not None for one in wanted)
        recipe, untrusted = await find_trusted_recipe(home, checkout, names_verify=names_verify)
    commits = {base: await _find_commit(checkout, base) for base in {spec.base for spec in specs}}
    bases = [_start(checkout, commits[one.spec.base]) for one in wanted]
    afters = await find_dependencies(store, caller.project, wanted, commits)
    specs = [_complete(services.settings, recipe, one.spec) for one in wanted]
    accounts = {
        agent: find_account(services, services.environments.find_for_caller(caller), agent, recipe)
        for agent in {spec.agent for spec in specs}
    }
    above = await store.agents.with_ancestors(parent.number) if parent else ()
    is_granted = any(one.spec.nesting and one.spec.nesting.budget_usd for one in above)
    by_default = None if is_granted else services.settings.budget.agent_usd
    specs = [_fund(spec, by_default, converses=bool(accounts[spec.agent])) for spec in specs]
    if parent:
        await check_grant(services, parent, specs, afters)
    new = [
        _new(caller, checkout, one._replace(spec=spec), base, accounts[spec.agent], recipe, after)
        for one, spec, base, after in zip(wanted, specs, bases, afters, strict=True)
    ]
    place = await find_naming_scheme(checkout.common_dir, home.worktrees)
    note = " ".join(_notes(services.settings, checkout, new, untrusted))
    return Spawned(await store.lifecycle.spawn(new, place, caller.call, commit=keep), note or None)


def _complete(settings: Settings, recipe: Recipe, spec: Spec) -> Spec:
    """The spec, with the program that the settings, and the verify that the repository, give where it names none."""
    verify = recipe.verify if spec.verify is None else spec.verify or None
    return spec.model_copy(update={"agent": spec.agent or settings.default_agent, "verify": verify})


def _fund(spec: Spec, by_default: float | None, *, converses: bool) -> Spec:
    """The spec, with the budget that the settings give where it says nothing, unless a grant above bounds it."""
    if not converses:
        return split_budget(spec, converses=False) if spec.nesting else spec
    return split_budget(spec.model_copy(update={"budget_usd": spec.budget_usd or by_default}), converses=True)


def _new(
    caller: Caller, checkout: Checkout, wanted: Entrant, base: str, account: str, recipe: Recipe, after: Dependencies
) -> NewAgent:
    spec, parent = wanted.spec, caller.session.agent
    return NewAgent(
        project=caller.project.number,
        lead=caller.lead,
        name=spec.name or slug(spec.task) or "task",
        derived=spec.name is None,
        spec=spec,
        base=base,
        checkout=parent.worktree.checkout if parent else checkout.top or "",
        conversation=str(uuid.uuid4()),
        environment=caller.environment,
        account=account,
        recipe=recipe,
        after=after.others,
        best_of=after.best_of,
        base_agents=after.base,
        candidate=wanted.candidate,
        candidates=wanted.candidates,
        parent=parent.number if parent else None,
        above=parent.leads if parent else (),
    )


def _check(checkout: Checkout, services: Services, wanted: Sequence[Entrant]) -> None:
    """See that these can be spawned here."""
    if not wanted:
        raise CallerError("agents is empty: give at least one, each with a task.")
    if checkout.top and services.home.state.is_relative_to(checkout.top):
        raise CallerError(
            f"FORKJOIN_HOME ({services.home.state}) lies within this checkout, "
            "which agents may not write to; move it out."
        )
    for one in wanted:
        _check_program(services.settings, one.spec)
        if len(one.spec.model or "") > _MODEL:
            raise CallerError(f"model is no model's name: it has more than {_MODEL} characters. Nothing was spawned.")
    together = [one.spec.name for one in wanted if one.candidate == 1]
    names = [name for name in (*(one.name for one in wanted), *together) if name]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise CallerError(f"The name {double!r} is given twice; each agent needs its own.")


def _check_program(settings: Settings, spec: Spec) -> None:
    """See that there is the program that this names, and that it, and what it spawns, keep to what this permits."""
    program = settings.program(spec.agent)
    if spec.permissions and not ADAPTERS[program.kind].KEEPS_PERMISSIONS:
        raise CallerError(
            f"{spec.agent or settings.default_agent} keeps no permissions: a {program.kind} asks nobody. Leave "
            "permissions out, or let a claude do it. Nothing was spawned."
        )
    if spec.nesting and (spec.permissions or settings.permissions != Permissions()):
        raise CallerError(
            "nesting and permissions (of the spec, or of the settings) exclude each other: what an agent may not do, "
            "one that it spawns would do for it. Leave one of them out. Nothing was spawned."
        )


async def _find_commit(checkout: Checkout, base: str | None) -> str | None:
    """The commit that `base` means; none where it means an agent, if anything."""
    return await resolve_commit(checkout.top or checkout.common_dir, base) if base else checkout.head


def _start(checkout: Checkout, commit: str | None) -> str:
    """The commit at which an agent starts: its base, or what is checked out."""
    start = commit or checkout.head
    if start is None:
        raise CallerError(
            "What is checked out has no commit yet, so there is nothing to start from; commit something first, or pass "
            "a commit as `base`. Nothing was spawned."
        )
    return start


def _notes(settings: Settings, checkout: Checkout, new: Sequence[NewAgent], untrusted: str | None) -> Iterator[str]:
    """What the lead should know of where these start, and of what of their specs means nothing."""
    if checkout.dirty and any(one.spec.base is None for one in new):
        yield "The checkout has uncommitted changes; agents start from its last commit, without them."
    if any(one.spec.budget_usd and not one.account for one in new):
        yield "budget_usd means nothing for a command: it tells no cost."
    limited = (one.spec.agent for one in new if one.spec.permissions and one.spec.permissions.allow is not None)
    if free := next((agent for agent in limited if settings.program(agent).skip_permissions), None):
        yield f"{free} asks for nothing, as its settings say (skip_permissions): only `deny` holds."
    if untrusted:
        yield untrusted
