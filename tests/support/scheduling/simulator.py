"""A simulator of the scheduler: the daemon's decisions and records, on a simulated clock.

The scheduler, its gates, the rate-limit policy, the delays before retries and the table of states are forkjoin's own
code. The clock, the agents' programs and their vendors are simulated. The order of steps imitates `reconciler.py` and
`lifecycle.py`, and may differ from them:

- A change is noticed after all other events of the same moment.
- Preparing an agent, finishing it, and ending its program take a fixed time.
- An action of a program is recorded at once.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

from forkjoin.adapters.contract import Conclusion, Retry
from forkjoin.agents import apply_schedule, rate_limits, retry
from forkjoin.agents.finish import final_state
from forkjoin.agents.lead_environment import find_or_give_slot_back
from forkjoin.agents.machine_usage import MachineMonitor
from forkjoin.core.event import Noted, RateLimited
from forkjoin.core.lead_environments import LeadEnvironments
from forkjoin.core.model import CALLING, FINAL, Agent, Merge, PauseKind, State
from forkjoin.core.outcome import Outcome
from forkjoin.core.paths import Home
from forkjoin.core.result import Result, Verify
from forkjoin.core.settings import Limits, RepositorySettings, Settings
from forkjoin.process.executor import Executor
from forkjoin.scheduling.machine_capacity import MachineState, program_key, update_need
from forkjoin.scheduling.scheduler import SchedulerDecision, SchedulerInput, decide
from forkjoin.services import Services
from forkjoin.store import lifecycle, rows
from forkjoin.store.rows import NewAgent
from forkjoin.store.store import Store
from support.records import NOBODY, place
from support.scheduling.clock import Clock, Event
from support.scheduling.script import History, Program, Script
from support.scheduling.stores import TableStore

T = TypeVar("T")

#: The beginning of a history, in seconds since the epoch.
BEGIN = 1_000_000.0
#: Seconds until a stopped program has ended.
GRACE_S = 2.0
#: Seconds before a program repeats a refused call, and before an agent checks again for its lead's environment.
RETRY_S = 3.0
#: Seconds by which a probe precedes the next event.
_PROBE_LEAD_S = 0.001
#: The shortest pause of the reconciler in seconds, if nothing happens.
_SHORTEST_PAUSE_S = 0.1
#: An amount that no history spends, and the unit of memory.
AMPLE_USD, GB = 1000.0, 1_000_000_000
#: More decisions than any history needs.
_MAX_RECORDS = 20_000


class DecisionRecord(NamedTuple):
    """A decision and its input."""

    inputs: SchedulerInput
    decision: SchedulerDecision
    is_probe: bool  #: made early, although nothing had happened


class World:
    """A simulation, from the first spawn until no events are left.

    Attributes:
        records: All decisions, in order.
        stop_requests: By agent number: the time of the stop, for agents that had not ended.
        spent: By agent number: the cost of all calls.
    """

    def __init__(self, history: History, *, store: Store | None = None, probes: bool = False) -> None:
        """Prepare a simulation.

        Args:
            store: The store of the daemon. The default is a table in memory.
            probes: Whether the scheduler also decides just before each event.
        """
        self.history = history
        self.records: list[DecisionRecord] = []
        self.stop_requests: dict[int, float] = {}
        self.spent = defaultdict[int, float](float)
        home = Home(Path("/home"), Path("/home"))
        executor = _Executor(home.attempts, home.daemon_lock, [])
        settings = Settings(limits=Limits(max_running=history.max_running))
        self._services = Services(home, settings, store or TableStore(), executor, LeadEnvironments())
        self._schedule = apply_schedule.ScheduleApplier(self._services)
        self._programs = {n: Program(script, left_s=script.turns[0].work_s) for n, script in history.numbered()}
        self._random = random.Random(history.seed)
        self._probes = probes
        self._is_probe = False
        self._clock = Clock(BEGIN)
        self._followed_up: dict[int, tuple[State, int, bool]] = {}  #: the last state of each agent that was followed up
        self._next: dict[int, Event] = {}  #: the next step of each agent
        self._wake: Event | None = None  #: the next pass of the reconciler
        self._plan()

    def __repr__(self) -> str:
        return f"World({self.history})"

    def _plan(self) -> None:
        """Plan the actions of people, and the restarts of the daemon."""
        if budget := self.history.budget:
            self._clock.plan(0, lambda: _run_sync(self._services.store.budgets.set_limit(1, "", budget.limit_usd)))
            self._clock.plan(budget.raised_s, self._raise_budgets)
        for number, script in self.history.numbered():
            self._clock.plan(script.spawned, partial(self._spawn, f"agent-{number}", script))
            for after_s, act in ((script.stop_s, self._stop), (script.message_s, self._send_message)):
                if after_s is not None:
                    self._clock.plan(script.spawned + after_s, partial(act, number))
        for restart in self.history.restarts:
            self._clock.plan(restart.at, self._restart)
            self._clock.plan(restart.at + restart.reconnect_s, self._connect_all)

    @property
    def now(self) -> float:
        return self._clock.now

    def run(self) -> "World":
        """Run all events. Return this simulation."""
        with self._patched():
            while (event := self._clock.next_event()) and len(self.records) < _MAX_RECORDS:
                self._probe(event.at)
                self._clock.advance()
                upcoming = self._clock.next_event()
                if upcoming is None or upcoming.at > self.now:
                    self._reconcile()
        return self

    def agents(self) -> list[Agent]:
        with self._patched():
            return [_run_sync(self._services.store.agents.get(number)) for number in self._programs]

    def _patched(self) -> ExitStack:
        """Patch forkjoin's clock, random numbers and machine. No transition may fail."""
        with ExitStack() as stack:
            for module in (apply_schedule, lifecycle, rate_limits, retry):
                stack.enter_context(patch.object(module, "time", self._clock))
            for module in (rate_limits, retry):
                stack.enter_context(patch.object(module, "random", self._random))
            stack.enter_context(patch.object(apply_schedule, "decide", self._decide))
            stack.enter_context(patch.object(apply_schedule, "_unless_moved", nullcontext))
            stack.enter_context(patch.object(MachineMonitor, "measure", self._measure_machine))
            if isinstance(self._services.store, TableStore):
                stack.enter_context(patch.object(rows, "agent", _unchanged))
            return stack.pop_all()

    # -- the reconciler

    def _reconcile(self) -> None:
        """Run passes of the reconciler until one changes nothing."""
        changes, seen, soon = self._services.store.changes, None, math.inf
        while changes.version != seen and len(self.records) < _MAX_RECORDS:
            seen = changes.version
            for agent in _run_sync(self._schedule.apply()):
                self._follow_up(agent)
            soon = max(_SHORTEST_PAUSE_S, self._schedule.next_pass_s)
        if self._wake:
            self._wake.is_cancelled = True
        self._wake = self._clock.plan(self.now - BEGIN + soon, _nothing) if soon < math.inf else None

    def _probe(self, at: float) -> None:
        """Decide just before the next event. A test checks that the decision is empty."""
        if self._probes and at - _PROBE_LEAD_S > self.now:
            self._clock.now = at - _PROBE_LEAD_S
            self._is_probe = True
            _run_sync(self._schedule.apply())
            self._is_probe = False

    def _decide(self, inputs: SchedulerInput) -> SchedulerDecision:
        decision = decide(inputs)
        self.records.append(DecisionRecord(inputs, decision, self._is_probe))
        return decision

    async def _measure_machine(self, live: Sequence[Agent]) -> MachineState | None:
        """Return the state of the machine. Existing programs use their whole memory."""
        if self.history.memory_gb is None:
            return None
        existing = [agent for agent in live if agent.phase in (*CALLING, PauseKind.FROZEN, PauseKind.ENDING)]
        used = {agent.number: round(self._programs[agent.number].script.program_gb * GB) for agent in existing}
        free = round(self.history.memory_gb * GB) - sum(used.values())
        return MachineState(
            free, kept_free_bytes=GB, used_bytes=used, needed_bytes=await self._services.store.projects.memory_peaks()
        )

    # -- people

    def _spawn(self, name: str, script: Script) -> None:
        self._connect(script.lead)
        environment = self._services.environments.add({"LEAD": script.lead})
        new = NewAgent(
            *(1, script.lead, name, False, script.spec, "", "", "", environment, script.account, RepositorySettings()),
            rows.Others(script.after),
        )
        (agent,) = _run_sync(self._services.store.lifecycle.spawn([new], place, NOBODY))
        budget = self.history.budget
        if agent.money.budget_usd is not None and budget and self.now > BEGIN + budget.raised_s:
            _run_sync(self._services.store.agents.update(agent, budget_usd=AMPLE_USD))

    def _stop(self, number: int) -> None:
        agent = _run_sync(self._services.store.agents.get(number))
        if agent.state not in FINAL:
            self.stop_requests[number] = self.now
            _run_sync(self._services.store.lifecycle.ask_stop([agent]))

    def _send_message(self, number: int) -> None:
        agent, program = _run_sync(self._services.store.agents.get(number)), self._programs[number]
        if agent.state in FINAL and not agent.stop_asked:
            program.done, program.left_s = 0, program.script.turns[0].work_s
            _run_sync(self._services.store.lifecycle.queue_again(agent, "Do it again."))

    def _raise_budgets(self) -> None:
        """Raise all budgets so far that no agent waits for money."""
        _run_sync(self._services.store.budgets.set_limit(1, "", 100 * AMPLE_USD))
        for agent in _run_sync(self._services.store.agents.live()):
            if agent.money.budget_usd is not None:
                _run_sync(self._services.store.agents.update(agent, budget_usd=AMPLE_USD))

    def _restart(self) -> None:
        services = self._services
        self._services = Services(
            services.home, services.settings, services.store, services.executor, LeadEnvironments()
        )
        self._schedule = apply_schedule.ScheduleApplier(self._services)
        self._services.store.changes.announce()

    def _connect_all(self) -> None:
        for script in self.history.scripts:
            self._connect(script.lead)

    def _connect(self, lead: str) -> None:
        digest = self._services.environments.add({"LEAD": lead})
        if self._services.environments.set_current(1, lead, digest):
            self._services.store.changes.announce()

    # -- an agent's life

    def _follow_up(self, agent: Agent) -> None:
        """Plan the step that follows from an agent's state, once."""
        at_work = State.RUNNING if agent.stop_asked and agent.phase is PauseKind.FROZEN else agent.state
        state = at_work, agent.attempt, agent.stop_asked or agent.phase is PauseKind.ENDING
        if self._followed_up.get(agent.number) == state:
            return
        self._followed_up[agent.number] = state
        program = self._programs[agent.number]
        match agent.state:
            case State.PREPARING:
                self._plan_step(agent, self.history.step_s, self._prepare)
            case State.FINISHING:
                self._plan_step(agent, self.history.step_s, self._finish)
            case _ if agent.stop_asked or agent.phase is PauseKind.ENDING:
                program.left_s = self._cancel_step(agent)
                self._plan_step(agent, GRACE_S, self._end)
            case State.RUNNING:
                self._plan_step(agent, program.left_s, self._end_turn)
            case _:  # frozen
                program.left_s = self._cancel_step(agent)

    def _plan_step(self, agent: Agent, seconds: float, act: Callable[[Agent], None]) -> None:
        """Plan the agent's next step in this number of seconds, and no other."""
        self._cancel_step(agent)
        number = agent.number
        self._next[number] = self._clock.plan(
            self.now - BEGIN + seconds, lambda: act(_run_sync(self._services.store.agents.get(number)))
        )

    def _cancel_step(self, agent: Agent) -> float:
        """Cancel the agent's next step. Return the seconds until it was due."""
        event = self._next.pop(agent.number, None)
        if event is None:
            return 0
        event.is_cancelled = True
        return event.at - self.now

    def _prepare(self, agent: Agent) -> None:
        if agent.stop_asked:
            self._services.waiting_for_environment.discard(agent.number)
            self._move(agent, State.FINISHING)
        elif find_or_give_slot_back(self._services, agent) is None:
            self._plan_step(agent, RETRY_S, self._prepare)
        else:
            bound = agent.money.reserved_usd > 0
            self._programs[agent.number].left_usd = (
                agent.money.reserved_usd - agent.money.spent_usd if bound else math.inf
            )
            self._move(agent, State.RUNNING)

    def _move(self, agent: Agent, to: State) -> None:
        _run_sync(self._services.store.lifecycle.move(agent, to))

    def _end_turn(self, agent: Agent) -> None:
        """End the work of a turn with a model call, or with an error."""
        program = self._programs[agent.number]
        script, program.left_s = program.script, 0
        if agent.history.retried < script.failures:
            self._end(agent, Conclusion(ok=False, output="", error="API Error: 500", retry=Retry.LATER))
        elif refused := self._refuse(agent):
            _run_sync(rate_limits.record_rate_limit(self._services, agent, refused))
            program.refusals += 1
            if program.refusals > script.own_retries:
                self._end(agent, Conclusion(ok=False, output="", error=refused.text, retry=Retry.WHEN_ACCEPTED))
            else:
                self._plan_step(agent, RETRY_S, self._end_turn)
        else:
            self._call(agent, program)

    def _refuse(self, agent: Agent) -> RateLimited | None:
        """Return the refusal of a call, or `None`. The longest period counts."""
        live = _run_sync(self._services.store.agents.live())
        running = sum(other.account == agent.account and other.state is State.RUNNING for other in live)
        short = [s for s in self.history.shortages if s.account == agent.account and running > s.accepted]
        active = [s for s in short if 0 <= self.now - BEGIN - s.period.since < s.period.lasts_s]
        return max(active, key=lambda s: s.period.lasts_s).refusal(BEGIN) if active else None

    def _call(self, agent: Agent, program: Program) -> None:
        turns = program.script.turns
        if agent.converses:
            self._record_cost(agent, program, turns[program.done].price_usd)
        program.done, program.refusals = program.done + 1, 0
        if program.done == len(turns):
            self._end(agent, Conclusion(ok=program.script.end == "ok", output="done"))
        elif program.left_usd <= 0:
            program.left_s = turns[program.done].work_s
            self._end(agent, Conclusion(ok=False, output="", retry=Retry.WHEN_FUNDED))
        else:
            self._plan_step(agent, turns[program.done].work_s, self._end_turn)

    def _record_cost(self, agent: Agent, program: Program, price_usd: float) -> None:
        """Record a call, and its cost unless the program hides the cost."""
        self.spent[agent.number] += price_usd
        program.left_usd -= price_usd
        cost = rows.Cost(str(self._clock.planned), "a model", None if program.script.hides_cost else price_usd)
        _run_sync(self._services.store.events.add(agent, [], None, [cost]))

    def _end(self, agent: Agent, concluded: Conclusion | None = None) -> None:
        """End the attempt, as after the end of its program."""
        program = self._programs[agent.number]
        program.concluded = concluded or Conclusion(ok=False, output="")
        program.refusals = 0
        if program.concluded.retry is Retry.WHEN_ACCEPTED:
            refused = RateLimited(program.concluded.error or "")
            _run_sync(rate_limits.record_rate_limit(self._services, agent, refused))
        key, used = program_key(agent), round(program.script.program_gb * GB)
        _run_sync(
            self._services.store.projects.set_memory_peak(
                *key, update_need(_run_sync(self._services.store.projects.memory_peaks()).get(key), used)
            )
        )
        if program.concluded.retry is Retry.WHEN_FUNDED:
            _run_sync(self._services.store.budgets.count_reserved_as_spent(agent))
        pause = retry.pause_after(self._services, agent, program.concluded)
        _run_sync(self._services.store.lifecycle.end_attempt(agent, Noted("ended"), pause, done=program.concluded.ok))

    def _finish(self, agent: Agent) -> None:
        program = self._programs[agent.number]
        verifies = agent.spec.verify and program.concluded.ok and not agent.stop_asked
        if verifies and find_or_give_slot_back(self._services, agent) is None:
            self._plan_step(agent, RETRY_S, self._finish)
            return
        self._services.waiting_for_environment.discard(agent.number)
        end = program.script.end
        outcome = Outcome(end if end in ("timed_out", "lost") and program.done else "exited")
        ok = program.concluded.ok
        state = final_state(outcome, stop_asked=agent.stop_asked, concluded_ok=ok, verify=Verify.NONE)
        _run_sync(self._services.store.lifecycle.finish(agent, Result(agent.attempt, state, "", ""), Merge.UNMERGED))


class _Executor(Executor):
    """An executor that accepts all input for programs, and is never asked anything else."""

    async def send(self, handle: str, data: bytes, *, once: bool = False) -> bool:
        return True


def _nothing() -> None:
    """Do nothing: the pass of the reconciler follows every event."""


def _unchanged(row: Agent) -> Agent:
    return row


def _run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as stop:
        found: T = stop.value
        return found
    raise AssertionError("the coroutine waits")
