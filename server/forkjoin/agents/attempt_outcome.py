"""What an attempt came to: its end, its last turn and what it printed, given to its adapter."""

from dataclasses import replace

from forkjoin.adapters.contract import Adapter, Conclusion, Ended, Retry
from forkjoin.agents.output_reader import last_turn
from forkjoin.core.model import OUTPUT_LIMIT, Agent, Outcome
from forkjoin.process.executor import End, read_end
from forkjoin.services import Services

_ERROR_LIMIT = 4_000
#: What is told of the end of stderr: the exit code stands before it.
_ERROR_BYTES = _ERROR_LIMIT - 200
#: What is kept of an output that is longer than a result may be: there must be room to say so.
_OUTPUT_BYTES = OUTPUT_LIMIT - 200


async def conclude(services: Services, adapter: Adapter, agent: Agent, outcome: Outcome) -> Conclusion:
    """What the agent's newest attempt came to, as its adapter reads it, cut to what a result keeps."""
    redact_end = services.environments.redact_end
    turn = await last_turn(services, adapter, agent) if adapter.MAKES_EVENTS else None
    if (outcome.asked or not outcome.ok) and await services.store.events.is_in_turn(agent):
        turn = None  # it was cut off in another
    printed = _tell(await read_end(services.executor, agent.handle, _OUTPUT_BYTES, redact_end, lines=True), agent)
    errors = (await read_end(services.executor, agent.handle, _ERROR_BYTES, redact_end, errors=True)).text
    denials = await services.store.events.denials(agent)
    if outcome.asked and turn and turn.ok:  # it was done when it was ended
        outcome = replace(outcome, kind="exited", code=0)
    concluded = adapter.conclude(Ended(outcome, turn, printed, errors, denials))
    error = concluded.error and concluded.error[:_ERROR_LIMIT]
    retry = Retry.LATER if outcome.passing else concluded.retry
    return replace(concluded, output=_beginning_of(concluded.output, agent), error=error, retry=retry)


def _beginning_of(output: str, agent: Agent) -> str:
    """As much of the last message as a result keeps, and where the rest is."""
    if len(output) <= OUTPUT_LIMIT:
        return output
    return f"{output[:_OUTPUT_BYTES]}\n[cut here; read_log({agent.id!r}, raw=true) has the whole]"


def _tell(end: End, agent: Agent) -> str:
    """The end of what was printed, and where the rest is."""
    note = f"[cut: {end.before} bytes before this; read_log({agent.id!r}, raw=true) has them]\n"
    return f"{note if end.before else ''}{end.text}"
