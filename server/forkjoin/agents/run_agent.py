"""The work of an agent's states, from the preparation of its worktree to its result.

The work of each state can safely be repeated, and leads to the next state. So a daemon that takes over continues from
the recorded state.
"""

import logging
from dataclasses import replace

from forkjoin.adapters.contract import Adapter, Retry
from forkjoin.adapters.registry import ADAPTERS
from forkjoin.agents.attach import end_person_program
from forkjoin.agents.attempt_outcome import conclude
from forkjoin.agents.finish import finish, finish_as_failed
from forkjoin.agents.foreign_ref_changes import record_refs
from forkjoin.agents.lead_environment import await_environment
from forkjoin.agents.machine_usage import record_peak_memory
from forkjoin.agents.message_delivery import deliver_messages
from forkjoin.agents.output_reader import store_output
from forkjoin.agents.prepare import prepare
from forkjoin.agents.program_launch import make_attempt_spec
from forkjoin.agents.rate_limits import record_rate_limit
from forkjoin.agents.retry import pause_after
from forkjoin.agents.setup_and_teardown import set_up
from forkjoin.agents.stop import end_processes
from forkjoin.core import daemon_log
from forkjoin.core.error import describe_error, is_transient
from forkjoin.core.event import Noted, RateLimited
from forkjoin.core.model import FINAL, RUNS, Agent, State
from forkjoin.core.outcome import Outcome
from forkjoin.services import Services
from forkjoin.workspace import config_tampering

log = logging.getLogger(__name__)

#: Outcomes after which processes of the attempt may still run: the shim is gone, or could not end them.
_MAY_STILL_RUN = ("lost", "timed_out", "limited")


async def run_agent(services: Services, number: int) -> None:
    """Do the work of an agent's states until it has ended, is queued, or rests.

    A transient error is raised, and the caller tries again. Any other error ends the agent as failed.
    """
    with daemon_log.concerning(agent=f"a{number}"):
        agent = await services.store.agents.get(number)
        try:
            while agent.under_way:
                agent = await _step(services, agent)
        except Exception as error:
            if is_transient(error):
                raise
            log.exception("%s: in state %s", agent.label, agent.state)
            await _end_as_failed(services, await services.store.agents.get(number), error)


async def _step(services: Services, agent: Agent) -> Agent:
    """Do the work of the agent's state. Return the agent's record in its next state."""
    match agent.state:
        case State.PREPARING:
            return await _prepare(services, agent)
        case State.RUNNING | State.WAITING | State.PAUSED:
            return await _run_attempt(services, agent)
        case State.FINISHING:
            await finish(services, _adapter(services, agent), agent, await _outcome(services, agent))
            return await services.store.agents.get(agent.number)
        case _:
            raise AssertionError(f"{agent.label} is not under way: {agent.state}")


async def _prepare(services: Services, agent: Agent) -> Agent:
    """Prepare the worktree and start the program. Return the running agent.

    If the agent was stopped meanwhile, no program starts, and the agent is finishing.
    """
    await end_person_program(services, agent)  # an earlier daemon may have left one, in this worktree
    agent = await prepare(services, agent)
    await config_tampering.take_snapshot(services, agent)
    environment = await await_environment(services, agent)
    if environment is None or not await set_up(services, agent, environment):
        return await services.store.lifecycle.move(agent, State.FINISHING, Noted("stopped before it started"))
    await record_refs(services, agent)
    spec = await make_attempt_spec(services, await services.store.agents.get(agent.number), environment)
    await services.executor.submit(spec)
    return await services.store.lifecycle.move(agent, State.RUNNING, Noted(f"started: {spec.argv[0]}"))


async def _run_attempt(services: Services, agent: Agent) -> Agent:
    """Read the program's output until the program has ended.

    Returns:
        The agent. It is paused if another attempt follows, and finishing otherwise.
    """
    adapter = _adapter(services, agent)
    await store_output(services, adapter, agent)
    outcome = await _outcome(services, agent)
    await deliver_messages(
        services, agent
    )  # records that a message was sent if an earlier daemon was killed before it did
    await record_peak_memory(services, agent, outcome)
    concluded = await conclude(services, adapter, agent, outcome)
    if concluded.retry is Retry.WHEN_ACCEPTED:
        await record_rate_limit(services, agent, RateLimited(concluded.error or str(outcome)))
    if concluded.retry is Retry.WHEN_FUNDED:
        await services.store.budgets.count_reserved_as_spent(agent)
    rest = pause_after(services, agent, concluded)
    if rest:  # records what changed until now: changes during the pause are not the agent's
        await config_tampering.find_tampering_warnings(services, agent)
    how = f"{rest.why}; another attempt follows" if rest else str(outcome)
    done = concluded.ok or outcome.kind == "timed_out"
    return await services.store.lifecycle.end_attempt(agent, Noted(f"ended: {how}"), rest, done=done)


async def _outcome(services: Services, agent: Agent) -> Outcome:
    """Wait until the newest attempt has ended, and return its outcome.

    After a stop, or if processes of the attempt may still run, also wait until all of them have ended.
    """
    outcome = await services.executor.outcome(agent.handle)
    if agent.stop_asked or outcome.kind in _MAY_STILL_RUN:
        await end_processes(services, agent)
        outcome = replace(outcome, survivors=())
    return outcome


def _adapter(services: Services, agent: Agent) -> Adapter:
    return ADAPTERS[services.settings.program(agent.spec.agent).kind]


async def _end_as_failed(services: Services, agent: Agent, error: Exception) -> None:
    """End the agent's processes and record a failed result with the error."""
    await end_processes(services, agent)
    if agent.state in (*RUNS, State.PAUSED):
        agent = await services.store.lifecycle.move(agent, State.FINISHING)
    if agent.state not in FINAL:
        await finish_as_failed(services, agent, describe_error(error))
