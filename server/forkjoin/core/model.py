"""The model that all packages share: agents, their phases, and their projects and budgets.

What a lead says about an agent at spawn is in `agent_spec.py`.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from forkjoin.core.agent_spec import SpecParts


class State(StrEnum):
    """The state of an agent. The last five states are final, until a message queues another attempt."""

    QUEUED = "queued"  #: waits for its next attempt to start
    PREPARING = "preparing"  #: its worktree is being created
    RUNNING = "running"  #: its program runs
    WAITING = "waiting"  #: its program runs, and waits for the answer to a request
    PAUSED = "paused"  #: paused in one of the ways of `PauseKind`
    FINISHING = "finishing"  #: its program has ended; its work is being committed, counted and verified
    SUCCEEDED = "succeeded"  #: the program reported success, and verify passed
    FAILED = "failed"  #: the program or verify failed, or the worktree could not be created
    STOPPED = "stopped"  #: a lead or a person stopped the agent
    TIMED_OUT = "timed_out"  #: it reached its time limit, or its limit of time without output
    LOST = "lost"  #: the machine or the shim died and left no end record


class PauseKind(StrEnum):
    """The ways in which an agent is paused."""

    FROZEN = "frozen"  #: the agent's program is stopped by a signal, and can continue
    ENDING = "ending"  #: the agent's program runs, and was asked to end
    RESTING = "resting"  #: the agent is between two attempts, and no program runs


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

#: The phases that may follow each phase. The store refuses every other transition.
#:
#: Two fields of an agent are independent of its phase:
#: - `Agent.stop_asked`: the transitions stay the same, but the program is ended and no attempt follows.
#: - `Agent.removing`: set only in final states, and never changes the state.
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

    PERSON_ATTACHED = "person_attached"  #: a person continues the agent's conversation in a terminal
    PERSON_LEFT = "person_left"  #: a person had attached to the conversation, and has left
    MEMORY = "memory"
    RATE_LIMIT = "rate_limit"
    BUDGET = "budget"
    RETRY = "retry"  #: the last attempt failed with an error that may be transient

    @property
    def sentence(self) -> str:
        """The reason in words for people, empty if only the pause's details explain it."""
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

    UNMERGED = "unmerged"  #: the branch has unmerged commits, or may get some
    QUEUED = "queued"  #: the branch is in the merge queue
    MERGED = "merged"  #: the branch was merged into a target
    CONFLICTED = "conflicted"  #: the last merge of the branch met a conflict
    REJECTED = "rejected"  #: the last merge of the branch failed verify
    NOTHING = "nothing"  #: the agent ended without a commit


class Removal(IntEnum):
    """The kind of an agent's removal that has begun. `NONE`, which is false, means that none has begun."""

    NONE = 0
    MERGED = 1  #: deletes only work that also exists elsewhere
    DISCARD = 2  #: also deletes unmerged work


@dataclass(frozen=True, slots=True)
class Project:
    """A repository, identified by its common git folder."""

    number: int
    common_dir: str


@dataclass(frozen=True, slots=True)
class Pause:
    """How and why an agent is paused. An agent that isn't paused has a pause without a reason."""

    reason: PauseReason | None = None  #: also None if version 0.1 recorded the reason as free text, in `details`
    details: str = ""
    kind: PauseKind = PauseKind.RESTING
    not_before: float = 0  #: the earliest time at which the agent may continue, in seconds since the epoch
    counts: bool = False  #: whether the next attempt counts against the spec's `retries`
    starts_over: bool = False  #: whether the next attempt starts with the task instead of resuming the conversation

    @property
    def why(self) -> str:
        """The reason in words for people."""
        return (self.reason and self.reason.sentence) or self.details


@dataclass(frozen=True, slots=True)
class AgentWorktree:
    """An agent's worktree and branch, and the commit and the checkout that they were created from."""

    path: str  #: the same for the agent's whole life, even after the worktree was removed
    branch: str  #: without refs/heads/
    base: str  #: the commit that the branch starts from
    checkout: str  #: path of the user's checkout in which the agent was spawned; empty for a bare repository
    prepared: bool = False  #: whether worktree and branch were created
    port_base: int = 0  #: the first port of the agent's block of ports; 0 if it has no block


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of an agent's life, in seconds since the epoch. A time is None if its event has not happened."""

    created: float
    started: float | None = None  #: when the agent's first program started
    ended: float | None = None  #: when the agent last reached a final state
    removed: float | None = None  #: when the agent's worktree was removed


@dataclass(frozen=True, slots=True)
class Lineage:
    """The agents above and below an agent that was spawned by another agent."""

    parent: int | None = None  #: the number of the agent that spawned this one; None if a lead did
    above: tuple[str, ...] = ()  #: the parent's lead, then that lead's lead, and so on; empty if there is no parent
    spawned: int = 0  #: number of agents that the agent and its descendants have spawned


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The agents that another agent waits for, by number."""

    after: tuple[int, ...] = ()  #: agents that must have ended before the agent starts
    best_of: tuple[tuple[int, ...], ...] = ()  #: candidate groups in `after`; only the best of each group counts
    base_agents: tuple[int, ...] = ()  #: the best of these agents gives the base; empty if the spec names none


@dataclass(frozen=True, slots=True)
class Candidates:
    """The group of candidates for one task that an agent belongs to."""

    first: int = 0  #: the number of the first candidate of the group; 0 if the agent is no candidate
    name: str = ""  #: the name of the group


@dataclass(frozen=True, slots=True)
class ConflictToResolve:
    """The merge conflict that an agent was spawned to resolve, if any."""

    agent: int | None = None  #: the number of the agent whose branch conflicts with a target
    commit: str = ""  #: the commit of that agent's branch to merge into the base


@dataclass(frozen=True, slots=True)
class Money:
    """An agent's budget and spending, in USD."""

    budget_usd: float | None = None  #: the most that the agent may spend; None if it has no budget of its own
    reserved_usd: float = 0  #: amount reserved for the agent in all its budgets, including what it has spent
    cost_usd: float | None = None  #: amount spent; None if unknown
    wind_up: bool = False  #: whether forkjoin asked the agent to finish because little of its budget is left

    @property
    def spent_usd(self) -> float:
        """The amount spent in USD, or 0 if it is unknown."""
        return self.cost_usd or 0


@dataclass(frozen=True, slots=True)
class History:
    """Facts about an agent's past that outlive its attempts."""

    retried: int = 0  #: retries so far that count against the spec's `retries`
    was_merged: bool = False  #: whether the agent's branch was merged when a message last woke the agent
    restored: bool = False  #: whether the agent's record was lost, and restored from the files of its attempt


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
    attempt: int  #: the number of the newest attempt
    conversation: str  #: the id of the conversation that the program resumes
    environment: str  #: digest of the environment that the agent runs in
    account: str  #: the vendor account that rate-limits the agent's model calls; empty if it calls no model
    stop_asked: bool  #: whether a lead or a person has stopped the agent
    removing: Removal  #: the removal that has begun, and is continued after a crash
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
        """The id of the newest attempt, e.g. `a1-2`.

        The ids of the agent's other processes add their kind, e.g. `a1-2-verify`.
        """
        return f"{self.id}-{self.attempt}"

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.worktree.branch}"

    @property
    def converses(self) -> bool:
        """Whether the program holds a conversation with a model that can be resumed."""
        return bool(self.account)

    @property
    def phase(self) -> Phase:
        return self.pause.kind if self.state is State.PAUSED else self.state

    @property
    def under_way(self) -> bool:
        """Whether the agent is live, and neither queued nor resting."""
        return self.state in ACTIVE or self.phase in (PauseKind.FROZEN, PauseKind.ENDING)

    @property
    def is_over(self) -> bool:
        """Whether the agent has ended or was asked to stop."""
        return self.stop_asked or self.state in FINAL

    @property
    def has_begun(self) -> bool:
        """Whether the agent has left the queue, or has started before."""
        return self.timing.started is not None or self.state is not State.QUEUED

    @property
    def leads(self) -> tuple[str, ...]:
        """The agent's lead, then the leads above it.

        The agent's spending counts against the budgets of all of them.
        """
        return self.lead, *self.lineage.above

    @property
    def owner(self) -> tuple[int, str]:
        """The project and the root lead that the agent works for.

        The scheduler alternates between these pairs.
        """
        return self.project, self.root_lead

    @property
    def root_lead(self) -> str:
        """The topmost lead, which is not an agent.

        The agent runs in this lead's environment.
        """
        return self.leads[-1]

    @property
    def as_lead(self) -> str:
        """The name of this agent as a lead, in the records of agents that it spawns."""
        return lead_of(self.number)

    @property
    def discarded(self) -> bool:
        """Whether the agent's worktree was removed while its branch was unmerged."""
        return self.timing.removed is not None and self.merge not in (Merge.MERGED, Merge.NOTHING)

    @property
    def label(self) -> str:
        """Id and name, for use in a sentence."""
        return f"{self.id} ({self.name})"

    @property
    def slug(self) -> str:
        """Id and name, for use in a path or a ref."""
        return f"{self.id}-{self.name}"


def lead_of(number: int) -> str:
    """Return the name of the agent with this number as a lead, e.g. `agent:a1`."""
    return f"agent:a{number}"


@dataclass(frozen=True, slots=True)
class Budget:
    """The limit and the total spending of the agents of a project, or of one lead in the project."""

    project: int
    lead: str  #: empty for the whole repository
    limit_usd: float | None  #: None if no limit was set
    spent_usd: float = 0
