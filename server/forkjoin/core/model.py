"""The model that all packages share: agents, their phases, and their projects and budgets.

What a lead says about an agent at spawn is in `agent_spec.py`.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from forkjoin.core.agent_spec import SpecParts


class State(StrEnum):
    """The state of an agent. The last five states are final, until a message queues another attempt."""

    QUEUED = "queued"  #: waits for its next attempt to start
    PREPARING = "preparing"  #: its worktree is being made
    RUNNING = "running"  #: its program runs
    WAITING = "waiting"  #: its program runs, and waits for the answer to a request
    PAUSED = "paused"  #: in one of the ways of `PauseKind`
    FINISHING = "finishing"  #: its program has ended; its work is being committed, counted and verified
    SUCCEEDED = "succeeded"  #: the program reported success, and verify passed
    FAILED = "failed"  #: the program or verify failed, or its worktree could not be made
    STOPPED = "stopped"  #: somebody asked for its stop
    TIMED_OUT = "timed_out"  #: it reached its time limit, or its limit of silence
    LOST = "lost"  #: the machine or the shim vanished and left no end record


class PauseKind(StrEnum):
    """The ways in which an agent is paused."""

    FROZEN = "frozen"  #: its program is stopped by a signal, and can continue
    ENDING = "ending"  #: its program runs, and has been asked to end
    RESTING = "resting"  #: between two attempts: no program runs


#: The state of an agent, and for a paused agent the kind of its pause.
Phase = State | PauseKind

FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.TIMED_OUT, State.LOST})

#: States that count against the `max_running` limit.
ACTIVE = frozenset({State.PREPARING, State.RUNNING, State.WAITING, State.FINISHING})

#: States in which the agent's program runs and nobody has asked it to end.
RUNS = frozenset({State.RUNNING, State.WAITING})

#: States in which the agent's program makes model calls, or soon will.
CALLING = ACTIVE - {State.FINISHING}

_PAUSES = frozenset(PauseKind)

#: The phases that may follow each phase. The store refuses every other move.
#:
#: Two things are independent of the phase, since nothing depends on both:
#: - `Agent.stop_asked`: the agent moves as before, but its program is ended and no attempt follows.
#: - `Agent.removing`: set only in final states, which it never changes.
#: `Pause.not_before` delays the end of any pause.
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    State.QUEUED: frozenset({State.PREPARING, State.FINISHING, State.STOPPED, State.FAILED}),
    State.PREPARING: frozenset({State.RUNNING, State.FINISHING, State.FAILED}),
    State.RUNNING: frozenset({State.WAITING, *_PAUSES, State.FINISHING}),
    State.WAITING: frozenset({State.RUNNING, *_PAUSES, State.FINISHING}),
    PauseKind.FROZEN: frozenset({State.RUNNING, PauseKind.ENDING, PauseKind.RESTING, State.FINISHING}),
    PauseKind.ENDING: frozenset({PauseKind.RESTING, State.FINISHING}),
    PauseKind.RESTING: frozenset({PauseKind.RESTING, State.QUEUED, State.FINISHING}),
    State.FINISHING: FINAL,
    **dict.fromkeys(FINAL, frozenset({State.QUEUED})),
}


class PauseReason(StrEnum):
    """Why an agent is paused."""

    PERSON_ATTACHED = "person_attached"  #: a person continues its conversation in a terminal
    PERSON_LEFT = "person_left"  #: a person did so, and has left
    MEMORY = "memory"
    RATE_LIMIT = "rate_limit"
    BUDGET = "budget"
    RETRY = "retry"  #: the last attempt failed in a way that a later one may not

    @property
    def sentence(self) -> str:
        """The reason as people read it; empty if only a pause's details say enough."""
        match self:
            case PauseReason.PERSON_ATTACHED:
                return "a person is in its conversation"
            case PauseReason.PERSON_LEFT:
                return "a person was in its conversation"
            case PauseReason.MEMORY:
                return "memory is short"
            case PauseReason.RATE_LIMIT | PauseReason.BUDGET | PauseReason.RETRY:
                return ""


class Merge(StrEnum):
    """The outcome of an agent's branch."""

    UNMERGED = "unmerged"  #: it has commits, or may yet
    QUEUED = "queued"  #: a landing has it
    MERGED = "merged"  #: it is in a target
    CONFLICTED = "conflicted"  #: the last merge of it met a conflict
    REJECTED = "rejected"  #: the last merge of it failed verify
    NOTHING = "nothing"  #: it ended without a commit


class Removal(IntEnum):
    """What the removal of an agent that was begun may delete; false if no removal was begun."""

    NONE = 0
    MERGED = 1  #: only what is elsewhere, too
    DISCARD = 2  #: also what has to be kept first


@dataclass(frozen=True, slots=True)
class Project:
    """A repository, known by its common git folder."""

    number: int
    common_dir: str


@dataclass(frozen=True, slots=True)
class Pause:
    """How and why an agent is paused. An agent that isn't paused has a pause without a reason."""

    reason: PauseReason | None = None  #: also None if version 0.1 recorded it with a reason of its own words
    details: str = ""
    kind: PauseKind = PauseKind.RESTING
    not_before: float = 0  #: when it may continue at the earliest, in seconds since the epoch
    counts: bool = False  #: whether the next attempt counts against the spec's `retries`
    anew: bool = False  #: whether the next attempt begins with the task again

    @property
    def why(self) -> str:
        """The reason as people read it."""
        return (self.reason and self.reason.sentence) or self.details


@dataclass(frozen=True, slots=True)
class AgentWorktree:
    """An agent's worktree and branch, and what they were made from."""

    path: str  #: the same for the agent's whole life, also after the worktree was removed
    branch: str  #: without refs/heads/
    base: str  #: the commit that the branch starts from
    checkout: str  #: path of the user's checkout from where the agent was spawned; empty for a bare repository
    prepared: bool = False  #: whether worktree and branch were made
    port_base: int = 0  #: the first port of the agent's block of ports; 0 if it has no block


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of an agent's life, in seconds since the epoch; None for what has not happened."""

    created: float
    started: float | None = None  #: when its first program started
    ended: float | None = None  #: when it last reached a final state
    removed: float | None = None  #: when its worktree was removed


@dataclass(frozen=True, slots=True)
class Lineage:
    """The agents above and below an agent that was spawned by another agent."""

    parent: int | None = None  #: the number of the agent that spawned this one; None if a lead did
    above: tuple[str, ...] = ()  #: the parent's lead, then that lead's lead, and so on; empty if there is no parent
    spawned: int = 0  #: how many agents it has spawned, including those that its own agents spawned


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The agents that another agent waits for, by number."""

    after: tuple[int, ...] = ()  #: agents that must have ended before the agent starts
    best_of: tuple[tuple[int, ...], ...] = ()  #: candidate groups in `after`; only the best of each group counts
    base_agents: tuple[int, ...] = ()  #: the best of these gives the base; if empty, the base is a commit or `after`


@dataclass(frozen=True, slots=True)
class Candidates:
    """The group of candidates for one task that an agent belongs to."""

    first: int = 0  #: the number of the first candidate of the group; 0 if the agent is no candidate
    name: str = ""  #: the name of the group


@dataclass(frozen=True, slots=True)
class ConflictToResolve:
    """The merge conflict that an agent was spawned to resolve, if it was."""

    agent: int | None = None  #: the number of the agent whose branch conflicts with a target
    commit: str = ""  #: the commit of that agent's branch to merge into the base


@dataclass(frozen=True, slots=True)
class Money:
    """What an agent may spend and has spent, in USD."""

    budget_usd: float | None = None  #: the most that it may spend; None if it has no budget of its own
    reserved_usd: float = 0  #: reserved for it from all budgets it counts against, including what it has spent
    cost_usd: float | None = None  #: what it has spent; None if that is not known
    wind_up: bool = False  #: whether it was asked to finish because its money runs out

    @property
    def spent_usd(self) -> float:
        """What the agent has spent as far as is known; 0 if that is not known."""
        return self.cost_usd or 0


@dataclass(frozen=True, slots=True)
class History:
    """What earlier attempts of an agent leave in its record."""

    retried: int = 0  #: retries so far that count against the spec's `retries`
    was_merged: bool = False  #: whether its branch was merged when it was last woken by a message
    restored: bool = False  #: whether its record was lost, and made again from the files of its attempt


@dataclass(frozen=True, slots=True)
class Agent:
    """The record of an agent: one task given to one coding-agent program."""

    number: int
    project: int
    lead: str
    name: str
    spec: SpecParts  #: without the task, which may be large: see `Agents.task`
    state: State
    merge: Merge
    attempt: int  #: the number of its newest attempt
    conversation: str  #: the id that its program resumes
    environment: str  #: digest of the environment it was spawned in
    account: str  #: the account whose rate limit its model calls count against; empty if it calls no model
    stop_asked: bool  #: whether somebody asked for its stop
    removing: Removal  #: the removal that was begun, and is finished after a crash
    last_event: str
    worktree: AgentWorktree
    timing: Timing
    pause: Pause
    money: Money
    lineage: Lineage
    dependencies: Dependencies
    candidates: Candidates
    conflict: ConflictToResolve
    history: History

    @property
    def id(self) -> str:
        return f"a{self.number}"

    @property
    def handle(self) -> str:
        """The id of the newest attempt; other processes for the agent add their kind, e.g. `a1-2-verify`."""
        return f"{self.id}-{self.attempt}"

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.worktree.branch}"

    @property
    def converses(self) -> bool:
        """Whether its program holds a conversation with a model, which costs money and can be resumed."""
        return bool(self.account)

    @property
    def phase(self) -> Phase:
        return self.pause.kind if self.state is State.PAUSED else self.state

    @property
    def under_way(self) -> bool:
        """Whether a task of the daemon must carry the agent on: it is not over, queued or resting."""
        return self.state in ACTIVE or self.phase in (PauseKind.FROZEN, PauseKind.ENDING)

    @property
    def is_over(self) -> bool:
        """Whether it has ended or was asked to stop."""
        return self.stop_asked or self.state in FINAL

    @property
    def has_begun(self) -> bool:
        """Whether it has ever started; an agent that was skipped has not."""
        return self.timing.started is not None or self.state is not State.QUEUED

    @property
    def leads(self) -> tuple[str, ...]:
        """Its lead, then the leads above; what it spends counts against the budgets of all."""
        return self.lead, *self.lineage.above

    @property
    def whose(self) -> tuple[int, str]:
        """The project and root lead that it works for, among which the scheduler takes turns."""
        return self.project, self.root_lead

    @property
    def root_lead(self) -> str:
        """The topmost lead, which is no agent; the agent runs in this lead's environment."""
        return self.leads[-1]

    @property
    def as_lead(self) -> str:
        """The lead name of this agent in the records of agents that it spawns."""
        return lead_of(self.number)

    @property
    def discarded(self) -> bool:
        """Whether its worktree was removed without its work being merged."""
        return self.timing.removed is not None and self.merge not in (Merge.MERGED, Merge.NOTHING)

    @property
    def label(self) -> str:
        """Id and name, for a sentence."""
        return f"{self.id} ({self.name})"

    @property
    def slug(self) -> str:
        """Id and name, for a path or a ref."""
        return f"{self.id}-{self.name}"


def lead_of(number: int) -> str:
    """Return the lead name of the agent with this number."""
    return f"agent:a{number}"


@dataclass(frozen=True, slots=True)
class Budget:
    """What the agents of a project, or of one lead in the project, may spend and have spent together."""

    project: int
    lead: str  #: '' for the whole repository
    limit_usd: float | None  #: none where nobody has set one
    spent_usd: float = 0
