"""A simulator of the scheduler: what the daemon decides and records, on a simulated clock.

The scheduler, its gates, the rate-limit policy, the delays before retries and the table of states are forkjoin's own
code. The clock, the agents' programs and their vendors are simulated. The order of steps imitates `reconciler.py` and
`lifecycle.py`, and may differ from them:

- A change is noticed once nothing else happens at that moment.
- Preparing an agent, finishing it, and ending its program take a fixed time.
- What a program does is recorded at once.
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
from forkjoin.agents.lead_environment import find_environment
from forkjoin.agents.machine_usage import MachineMonitor
from forkjoin.core.event import Noted, RateLimited
from forkjoin.core.lead_environments import LeadEnvironments
from forkjoin.core.model import CALLING, FINAL, Agent, Merge, PauseKind, State
from forkjoin.core.outcome import Outcome
from forkjoin.core.paths import Home
from forkjoin.core.result import Result, Verify
from forkjoin.core.settings import Limits, Recipe, Settings
from forkjoin.process.local_executor import LocalExecutor
from forkjoin.scheduling.machine_capacity import MachineState, program_key, update_need
from forkjoin.scheduling.scheduler import SchedulerDecision, SchedulerInput, decide
from forkjoin.services import Services
from forkjoin.store import rows, transitions
from forkjoin.store.rows import NewAgent
from forkjoin.store.store import Store
from support.records import NOBODY, place
from support.scheduling.clock import Clock, Event
from support.scheduling.script import History, Program, Script
from support.scheduling.stores import TableStore

T = TypeVar("T")

#: When a history begins, in seconds since the epoch.
BEGIN = 1_000_000.0
#: How long it takes until a program that is to be stopped has ended.
GRACE_S = 2.0
#: How long a program waits before it tries a refused call again by itself, and an agent before it looks for its lead.
AGAIN_S = 3.0
#: How long before something happens it is glanced.
_BEFORE_S = 0.001
#: The reconciler looks no sooner again where nothing has happened.
_SOONEST_S = 0.1
#: Money and memory that nobody lacks, or counts.
RICH_USD, GB = 1000.0, 1_000_000_000
#: More looks than any history needs.
_TOO_MANY = 20_000


class Look(NamedTuple):
    """A decision: what was, and what was decided."""

    inputs: SchedulerInput
    decision: SchedulerDecision
    is_glance: bool  #: nothing had happened, nor was a look due


class World:
    """Agents with their scripts, from the first spawn until nothing happens any more.

    Attributes:
        looks: Every decision, in order.
        asked: When each agent was asked to stop that had not ended.
        spent: What the calls of each agent have cost.
    """

    def __init__(self, history: History, *, records: Store | None = None, glances: bool = False) -> None:
        """A world in which nothing has happened.

        Args:
            records: Where it is recorded; by default in a table.
            glances: Whether it is looked just before something happens, too.
        """
        self.history = history
        self.looks: list[Look] = []
        self.asked: dict[int, float] = {}
        self.spent = defaultdict[int, float](float)
        home = Home(Path("/home"), Path("/home"))
        executor = _Executor(home.attempts, home.daemon_lock, [])
        settings = Settings(limits=Limits(max_running=history.max_running))
        self._services = Services(home, settings, records or TableStore(), executor, LeadEnvironments())
        self._schedule = apply_schedule.ScheduleApplier(self._services)
        self._programs = {n: Program(script, left_s=script.turns[0].work_s) for n, script in history.numbered()}
        self._draw = random.Random(history.seed)
        self._glances = glances
        self._is_glance = False
        self._clock = Clock(BEGIN)
        self._seen_to: dict[int, tuple[State, int, bool]] = {}  #: what of each agent is being seen to
        self._next: dict[int, Event] = {}  #: the next step of each agent
        self._wake: Event | None = None  #: the next look that was asked for
        self._plan()

    def __repr__(self) -> str:
        return f"World({self.history})"

    def _plan(self) -> None:
        """Let happen what people do, and daemons."""
        if purse := self.history.purse:
            self._clock.at(0, lambda: _done(self._services.store.budgets.set_limit(1, "", purse.limit_usd)))
            self._clock.at(purse.raised_s, self._raise)
        for number, script in self.history.numbered():
            self._clock.at(script.spawned, partial(self._spawn, f"agent-{number}", script))
            for after_s, act in ((script.stopped_s, self._stop), (script.told_s, self._tell)):
                if after_s is not None:
                    self._clock.at(script.spawned + after_s, partial(act, number))
        for restart in self.history.restarts:
            self._clock.at(restart.at, self._restart)
            self._clock.at(restart.at + restart.back_s, self._connect_all)

    @property
    def now(self) -> float:
        return self._clock.now

    def run(self) -> "World":
        """Let all happen; the world as it is then."""
        with self._played():
            while (event := self._clock.following()) and len(self.looks) < _TOO_MANY:
                self._glance(event.at)
                self._clock.pass_to_following()
                following = self._clock.following()
                if following is None or following.at > self.now:
                    self._look()
        return self

    def agents(self) -> list[Agent]:
        with self._played():
            return [_done(self._services.store.agents.get(number)) for number in self._programs]

    def _played(self) -> ExitStack:
        """Who asks for the time, or draws, asks ours; nobody moves an agent while another does, so no move may fail."""
        with ExitStack() as stack:
            for module in (apply_schedule, rate_limits, retry, transitions):
                stack.enter_context(patch.object(module, "time", self._clock))
            for module in (rate_limits, retry):
                stack.enter_context(patch.object(module, "random", self._draw))
            stack.enter_context(patch.object(apply_schedule, "decide", self._decide))
            stack.enter_context(patch.object(apply_schedule, "_unless_moved", nullcontext))
            stack.enter_context(patch.object(MachineMonitor, "measure", self._look_at_machine))
            if isinstance(self._services.store, TableStore):
                stack.enter_context(patch.object(rows, "agent", _as_it_is))
            return stack.pop_all()

    # -- the reconciler

    def _look(self) -> None:
        """Decide, and see to what is under way, as long as that changes anything."""
        changes, seen, soon = self._services.store.changes, None, math.inf
        while changes.version != seen and len(self.looks) < _TOO_MANY:
            seen = changes.version
            for agent in _done(self._schedule.apply()):
                self._see_to(agent)
            soon = max(_SOONEST_S, self._schedule.next_pass_s)
        if self._wake:
            self._wake.is_off = True
        self._wake = self._clock.at(self.now - BEGIN + soon, _nothing) if soon < math.inf else None

    def _glance(self, at: float) -> None:
        """Decide just before something happens: that nothing comes of it, a test must see."""
        if self._glances and at - _BEFORE_S > self.now:
            self._clock.now = at - _BEFORE_S
            self._is_glance = True
            _done(self._schedule.apply())
            self._is_glance = False

    def _decide(self, inputs: SchedulerInput) -> SchedulerDecision:
        decision = decide(inputs)
        self.looks.append(Look(inputs, decision, self._is_glance))
        return decision

    async def _look_at_machine(self, live: Sequence[Agent]) -> MachineState | None:
        """What there is; a program takes its memory as long as it is there."""
        if self.history.memory_gb is None:
            return None
        there = [one for one in live if one.phase in (*CALLING, PauseKind.FROZEN, PauseKind.ENDING)]
        taken = {one.number: round(self._programs[one.number].script.takes_gb * GB) for one in there}
        free = round(self.history.memory_gb * GB) - sum(taken.values())
        return MachineState(
            free, kept_free_bytes=GB, used_bytes=taken, needed_bytes=await self._services.store.projects.memory_peaks()
        )

    # -- people

    def _spawn(self, name: str, script: Script) -> None:
        self._connect(script.lead)
        environment = self._services.environments.add({"LEAD": script.lead})
        new = NewAgent(
            *(1, script.lead, name, False, script.spec, "", "", "", environment, script.account, Recipe()),
            rows.Others(script.after),
        )
        (agent,) = _done(self._services.store.lifecycle.spawn([new], place, NOBODY))
        if agent.money.budget_usd is not None and self.history.purse and self.now > BEGIN + self.history.purse.raised_s:
            _done(self._services.store.agents.update(agent, budget_usd=RICH_USD))

    def _stop(self, number: int) -> None:
        agent = _done(self._services.store.agents.get(number))
        if agent.state not in FINAL:
            self.asked[number] = self.now
            _done(self._services.store.lifecycle.ask_stop([agent]))

    def _tell(self, number: int) -> None:
        agent, program = _done(self._services.store.agents.get(number)), self._programs[number]
        if agent.state in FINAL and not agent.stop_asked:
            program.done, program.left_s = 0, program.script.turns[0].work_s
            _done(self._services.store.lifecycle.queue_again(agent, "Do it again."))

    def _raise(self) -> None:
        """Nobody has to look at money any more."""
        _done(self._services.store.budgets.set_limit(1, "", 100 * RICH_USD))
        for agent in _done(self._services.store.agents.live()):
            if agent.money.budget_usd is not None:
                _done(self._services.store.agents.update(agent, budget_usd=RICH_USD))

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

    def _see_to(self, agent: Agent) -> None:
        """Let follow what an agent's state asks for, once."""
        at_work = State.RUNNING if agent.stop_asked and agent.phase is PauseKind.FROZEN else agent.state
        state = at_work, agent.attempt, agent.stop_asked or agent.phase is PauseKind.ENDING
        if self._seen_to.get(agent.number) == state:
            return
        self._seen_to[agent.number] = state
        program = self._programs[agent.number]
        match agent.state:
            case State.PREPARING:
                self._after(agent, self.history.step_s, self._prepare)
            case State.FINISHING:
                self._after(agent, self.history.step_s, self._finish)
            case _ if agent.stop_asked or agent.phase is PauseKind.ENDING:
                program.left_s = self._cancel(agent)
                self._after(agent, GRACE_S, self._end)
            case State.RUNNING:
                self._after(agent, program.left_s, self._go_on)
            case _:  # frozen
                program.left_s = self._cancel(agent)

    def _after(self, agent: Agent, seconds: float, act: Callable[[Agent], None]) -> None:
        """Let this be the next step of the agent, so many seconds from now, and no other."""
        self._cancel(agent)
        number = agent.number
        self._next[number] = self._clock.at(
            self.now - BEGIN + seconds, lambda: act(_done(self._services.store.agents.get(number)))
        )

    def _cancel(self, agent: Agent) -> float:
        """In how many seconds the agent's next step was due, which is not to be made."""
        event = self._next.pop(agent.number, None)
        if event is None:
            return 0
        event.is_off = True
        return event.at - self.now

    def _prepare(self, agent: Agent) -> None:
        if agent.stop_asked:
            self._services.waiting_for_environment.discard(agent.number)
            self._move(agent, State.FINISHING)
        elif find_environment(self._services, agent) is None:
            self._after(agent, AGAIN_S, self._prepare)
        else:
            bound = agent.money.reserved_usd > 0
            self._programs[agent.number].left_usd = (
                agent.money.reserved_usd - agent.money.spent_usd if bound else math.inf
            )
            self._move(agent, State.RUNNING)

    def _move(self, agent: Agent, to: State) -> None:
        _done(self._services.store.lifecycle.move(agent, to))

    def _go_on(self, agent: Agent) -> None:
        """It has worked, and calls its model now."""
        program = self._programs[agent.number]
        script, program.left_s = program.script, 0
        if agent.history.retried < script.stumbles:
            self._end(agent, Conclusion(ok=False, output="", error="API Error: 500", retry=Retry.LATER))
        elif refused := self._refuse(agent):
            _done(rate_limits.record_rate_limit(self._services, agent, refused))
            program.tried += 1
            if program.tried > script.patience:
                self._end(agent, Conclusion(ok=False, output="", error=refused.text, retry=Retry.WHEN_TAKEN))
            else:
                self._after(agent, AGAIN_S, self._go_on)
        else:
            self._call(agent, program)

    def _refuse(self, agent: Agent) -> RateLimited | None:
        """What the vendor says, where it takes no more: what it says of the longest time."""
        live = _done(self._services.store.agents.live())
        running = sum(one.account == agent.account and one.state is State.RUNNING for one in live)
        short = [one for one in self.history.shortages if one.account == agent.account and running > one.takes]
        lasting = [one for one in short if 0 <= self.now - BEGIN - one.when.since < one.when.lasts_s]
        return max(lasting, key=lambda one: one.when.lasts_s).refusal(BEGIN) if lasting else None

    def _call(self, agent: Agent, program: Program) -> None:
        turns = program.script.turns
        if agent.converses:
            self._spend(agent, program, turns[program.done].price_usd)
        program.done, program.tried = program.done + 1, 0
        if program.done == len(turns):
            self._end(agent, Conclusion(ok=program.script.end == "ok", output="done"))
        elif program.left_usd <= 0:
            program.left_s = turns[program.done].work_s
            self._end(agent, Conclusion(ok=False, output="", retry=Retry.WHEN_FUNDED))
        else:
            self._after(agent, turns[program.done].work_s, self._go_on)

    def _spend(self, agent: Agent, program: Program, price_usd: float) -> None:
        """It tells what its call has cost, or does not."""
        self.spent[agent.number] += price_usd
        program.left_usd -= price_usd
        cost = rows.Cost(str(self._clock.planned), "a model", None if program.script.is_secretive else price_usd)
        _done(self._services.store.events.add(agent, [], None, [cost]))

    def _end(self, agent: Agent, concluded: Conclusion | None = None) -> None:
        """Its program has ended, by itself or not."""
        program = self._programs[agent.number]
        program.concluded = concluded or Conclusion(ok=False, output="")
        program.tried = 0
        if program.concluded.retry is Retry.WHEN_TAKEN:
            refused = RateLimited(program.concluded.error or "")
            _done(rate_limits.record_rate_limit(self._services, agent, refused))
        kind, taken = program_key(agent), round(program.script.takes_gb * GB)
        _done(
            self._services.store.projects.set_memory_peak(
                *kind, update_need(_done(self._services.store.projects.memory_peaks()).get(kind), taken)
            )
        )
        if program.concluded.retry is Retry.WHEN_FUNDED:
            _done(self._services.store.budgets.count_reserved_as_spent(agent))
        pause = retry.pause_after(self._services, agent, program.concluded)
        _done(self._services.store.lifecycle.end_attempt(agent, Noted("ended"), pause, done=program.concluded.ok))

    def _finish(self, agent: Agent) -> None:
        program = self._programs[agent.number]
        verifies = agent.spec.verify and program.concluded.ok and not agent.stop_asked
        if verifies and find_environment(self._services, agent) is None:
            self._after(agent, AGAIN_S, self._finish)
            return
        self._services.waiting_for_environment.discard(agent.number)
        end = program.script.end
        outcome = Outcome(end if end in ("timed_out", "lost") and program.done else "exited")
        ok = program.concluded.ok
        state = final_state(outcome, stop_asked=agent.stop_asked, concluded_ok=ok, verify=Verify.NONE)
        _done(self._services.store.lifecycle.finish(agent, Result(agent.attempt, state, "", ""), Merge.UNMERGED))


class _Executor(LocalExecutor):
    """It is asked for nothing, but to tell a program something."""

    async def send(self, handle: str, data: bytes, *, once: bool = False) -> bool:
        return True


def _nothing() -> None:
    """It is only looked."""


def _as_it_is(row: Agent) -> Agent:
    return row


def _done(work: Coroutine[Any, Any, T]) -> T:
    """What it returns; there is nothing here that it could wait for."""
    try:
        work.send(None)
    except StopIteration as stop:
        found: T = stop.value
        return found
    raise AssertionError("it waits for something")
