"""Spawning agents: their specs are checked, then all agents are recorded in one transaction."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from forkjoin.adapters.registry import ADAPTERS
from forkjoin.agents.candidates import RequestedAgent, expand_candidates
from forkjoin.agents.dependencies import ResolvedDependencies, find_dependencies
from forkjoin.agents.nested_spawns import check_grant, split_budget
from forkjoin.core.agent_spec import Permissions, Spec, slug
from forkjoin.core.error import CallerError
from forkjoin.core.model import Agent
from forkjoin.core.session import Caller
from forkjoin.core.settings import RepositorySettings, Settings
from forkjoin.git.branch_names import find_naming_scheme
from forkjoin.git.refs import resolve_commit
from forkjoin.git.repository import Checkout, read_checkout
from forkjoin.services import Services
from forkjoin.store.rows import NewAgent
from forkjoin.workspace.repository_config import find_trusted_settings
from forkjoin.workspace.workspace import find_account

#: The maximum length of a model's name in characters. Specs that an older version recorded may have longer ones.
_MODEL_LENGTH = 200


@dataclass(frozen=True, slots=True)
class SpawnOutcome:
    """The agents of a spawn, and a note for the lead."""

    agents: list[Agent]
    note: str | None  #: remarks about the base and about ignored parts of the specs, or None


async def spawn(services: Services, caller: Caller, specs: Sequence[Spec], *, keep: bool = True) -> SpawnOutcome:
    """Record agents with these specs, all or none.

    If the relay repeats a call that was answered before, the agents of the first answer are returned, without a note.

    Args:
        keep: Whether to record the agents. With `False` all checks are made, and the agents are returned as they would
            be recorded.

    Raises:
        CallerError: A spec is invalid or not allowed. Nothing was recorded.
    """
    store, parent = services.store, caller.session.agent
    if (before := await store.calls.answer_to(caller.call)) is not None:
        return SpawnOutcome([await store.agents.get(number) for number in before["agents"]], None)
    checkout = await read_checkout(caller.session.folder, check_dirty=True)
    requested = expand_candidates(specs)
    _check_specs(checkout, services, requested)
    recipe, untrusted = await _repository_settings(services, caller, checkout, requested)
    commits = {base: await _find_commit(checkout, base) for base in {spec.base for spec in specs}}
    starts = [_start_commit(checkout, commits[agent.spec.base]) for agent in requested]
    afters = await find_dependencies(store, caller.project, requested, commits)
    requested = [agent._replace(spec=_with_defaults(services.settings, recipe, agent.spec)) for agent in requested]
    environment = services.environments.find_for_caller(caller)
    programs = {agent.spec.agent for agent in requested}
    accounts = {program: find_account(services, environment, program, recipe) for program in programs}
    requested = await _with_budgets(services, parent, requested, accounts)
    if parent:
        await check_grant(services, parent, [agent.spec for agent in requested], afters)
    new = [
        _new_agent(caller, checkout, agent, start, accounts[agent.spec.agent], recipe, after)
        for agent, start, after in zip(requested, starts, afters, strict=True)
    ]
    naming = await find_naming_scheme(checkout.common_dir, services.home.worktrees)
    note = " ".join(_notes(services.settings, checkout, new, untrusted))
    return SpawnOutcome(await store.lifecycle.spawn(new, naming, caller.call, commit=keep), note or None)


async def _repository_settings(
    services: Services, caller: Caller, checkout: Checkout, requested: Sequence[RequestedAgent]
) -> tuple[RepositorySettings, str | None]:
    """Return the repository configuration for the agents, and a note.

    The note says which parts nobody has trusted.

    A nested agent gets that of its parent. The note is `None` if everything is trusted.
    """
    if caller.session.agent:
        return await services.store.projects.recipe(caller.session.agent), None
    names_verify = all(agent.spec.verify is not None for agent in requested)
    return await find_trusted_settings(services.home, checkout, names_verify=names_verify)


async def _with_budgets(
    services: Services,
    parent: Agent | None,
    requested: Sequence[RequestedAgent],
    accounts: Mapping[str | None, str],
) -> list[RequestedAgent]:
    """Return the requested agents with their budgets and grants.

    A spec without a budget gets the default budget of the settings. It gets none if an ancestor has a grant, which
    limits the agent anyway, or if the program reports no cost.

    Args:
        parent: The agent that spawns these agents, or `None` if a lead does.
        accounts: For each program, the account that its model calls count against; empty if it calls no model.
    """
    above = await services.store.agents.with_ancestors(parent.number) if parent else ()
    has_grant = any(agent.spec.nesting and agent.spec.nesting.budget_usd for agent in above)
    by_default = None if has_grant else services.settings.budget.agent_usd

    def with_budget(spec: Spec) -> Spec:
        converses = bool(accounts[spec.agent])
        return split_budget(
            spec, budget_usd=spec.budget_usd or by_default if converses else spec.budget_usd, converses=converses
        )

    return [agent._replace(spec=with_budget(agent.spec)) for agent in requested]


def _with_defaults(settings: Settings, recipe: RepositorySettings, spec: Spec) -> Spec:
    """Return the spec with the default program and verify, unless it has its own.

    An empty verify means that none runs.
    """
    verify = recipe.verify if spec.verify is None else spec.verify or None
    return spec.model_copy(update={"agent": spec.agent or settings.default_agent, "verify": verify})


def _new_agent(
    caller: Caller,
    checkout: Checkout,
    wanted: RequestedAgent,
    base: str,
    account: str,
    recipe: RepositorySettings,
    after: ResolvedDependencies,
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


def _check_specs(checkout: Checkout, services: Services, wanted: Sequence[RequestedAgent]) -> None:
    """Raise a CallerError if a spec is invalid, or the checkout can't be used."""
    if not wanted:
        raise CallerError("agents is empty. Pass at least one agent with a task.")
    if checkout.top and services.home.state.is_relative_to(checkout.top):
        raise CallerError(
            f"FORKJOIN_HOME ({services.home.state}) is in this checkout, "
            "which agents may not write to. Move it to another folder."
        )
    for requested in wanted:
        _check_program(services.settings, requested.spec)
        if len(requested.spec.model or "") > _MODEL_LENGTH:
            raise CallerError(
                f"model has more than {_MODEL_LENGTH} characters, so it isn't a model's name. Nothing was spawned."
            )
    together = [requested.spec.name for requested in wanted if requested.candidate == 1]
    names = [name for name in (*(requested.name for requested in wanted), *together) if name]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise CallerError(f"The name {double!r} is used twice. Each agent needs its own name. Nothing was spawned.")


def _check_program(settings: Settings, spec: Spec) -> None:
    """Raise a CallerError if the program is unknown, or can't keep to its permissions."""
    program = settings.program(spec.agent)
    if spec.permissions and not ADAPTERS[program.kind].KEEPS_PERMISSIONS:
        raise CallerError(
            f"{spec.agent or settings.default_agent} can't be given permissions, since a {program.kind} asks for none. "
            "Leave permissions out, or use a claude agent. Nothing was spawned."
        )
    if spec.nesting and (spec.permissions or settings.permissions != Permissions()):
        raise CallerError(
            "nesting and permissions (of the spec, or of the settings) exclude each other, because nested agents "
            "could do what the agent may not. Leave one of them out. Nothing was spawned."
        )


async def _find_commit(checkout: Checkout, base: str | None) -> str | None:
    """Return the commit that a spec's `base` means, or `None` if it means none.

    If `base` is `None`, return the commit of HEAD, or `None` if the checked-out branch has none.
    """
    return await resolve_commit(checkout.top or checkout.common_dir, base) if base else checkout.head


def _start_commit(checkout: Checkout, commit: str | None) -> str:
    """Return the commit that an agent starts from: `commit`, or else that of HEAD.

    An agent whose base is another agent gets the commit of HEAD until the other agent's work is known.
    """
    start = commit or checkout.head
    if start is None:
        raise CallerError(
            "The checked-out branch has no commit, so agents have nothing to start from. Commit something first, or "
            "pass a commit as `base`. Nothing was spawned."
        )
    return start


def _notes(settings: Settings, checkout: Checkout, new: Sequence[NewAgent], untrusted: str | None) -> Iterator[str]:
    """Yield remarks about uncommitted changes, ignored fields and untrusted settings.

    Args:
        untrusted: A remark about repository configuration that nobody has trusted, if there is any.
    """
    if checkout.dirty and any(agent.spec.base is None for agent in new):
        yield "The checkout has uncommitted changes. Agents start from its last commit, without these changes."
    if any(agent.spec.budget_usd and not agent.account for agent in new):
        yield "budget_usd has no effect on a command, which reports no cost."
    limited = (agent.spec.agent for agent in new if agent.spec.permissions and agent.spec.permissions.allow is not None)
    if free := next((agent for agent in limited if settings.program(agent).skip_permissions), None):
        yield f"The settings of {free} skip permissions, so only `deny` has an effect."
    if untrusted:
        yield untrusted
