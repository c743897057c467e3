"""The conclusion about an attempt, which its adapter draws from the program's end and its output."""

from dataclasses import replace

from forkjoin.adapters.contract import Adapter, AttemptEnd, Conclusion, Retry
from forkjoin.agents.output_reader import last_turn
from forkjoin.core.model import Agent
from forkjoin.core.outcome import Outcome
from forkjoin.core.result import OUTPUT_LIMIT
from forkjoin.process.executor import OutputTail, read_tail
from forkjoin.services import Services

#: The maximum length of an error, in characters.
_ERROR_LIMIT = 4_000
#: The maximum number of bytes of stderr in an error. The other 200 are for the exit code, which comes first.
_ERROR_BYTES = _ERROR_LIMIT - 200
#: The number of bytes that a result has of an output over its limit. The other 200 are for a note about the cut.
_OUTPUT_BYTES = OUTPUT_LIMIT - 200


async def conclude(services: Services, adapter: Adapter, agent: Agent, outcome: Outcome) -> Conclusion:
    """Return the adapter's conclusion about the newest attempt.

    Its output and error are cut to the limits of a result.
    """
    redact_end = services.environments.redact_end
    turn = await last_turn(services, adapter, agent) if adapter.MAKES_EVENTS else None
    if (outcome.asked or not outcome.ok) and await services.store.events.is_in_turn(agent):
        turn = None  # this turn had ended, but the program was interrupted in a later one
    printed = _end_with_note(
        await read_tail(services.executor, agent.handle, _OUTPUT_BYTES, redact_end, whole_lines=True), agent
    )
    errors = (await read_tail(services.executor, agent.handle, _ERROR_BYTES, redact_end, errors=True)).text
    denials = await services.store.events.denials(agent)
    if outcome.asked and turn and turn.ok:  # no turn was interrupted, so the exit code of the forced end says nothing
        outcome = replace(outcome, kind="exited", code=0)
    concluded = adapter.conclude(AttemptEnd(outcome, turn, printed, errors, denials))
    error = concluded.error and concluded.error[:_ERROR_LIMIT]
    retry = Retry.LATER if outcome.is_transient else concluded.retry
    return replace(concluded, output=_beginning_of(concluded.output, agent), error=error, retry=retry)


def _beginning_of(output: str, agent: Agent) -> str:
    """Return the output, or its beginning and a note if it exceeds the limit."""
    if len(output) <= OUTPUT_LIMIT:
        return output
    return f"{output[:_OUTPUT_BYTES]}\n[cut here; read_log({agent.id!r}, raw=true) has the whole]"


def _end_with_note(end: OutputTail, agent: Agent) -> str:
    """Return the end of stdout, after a note if `end` omits the beginning."""
    note = f"[cut: {end.omitted} bytes before this; read_log({agent.id!r}, raw=true) has them]\n"
    return f"{note if end.omitted else ''}{end.text}"
