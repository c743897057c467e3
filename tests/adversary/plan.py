"""The plan of a history, drawn at random or read from a line: `sparse + dirty | spawn commits, moves main; wait; …`."""

import random
from dataclasses import dataclass
from typing import Self

from adversary.actions import ACTIONS, FAMILIES
from adversary.repository_kinds import MADE
from adversary.states import DONE

#: The verify command of merges. It first runs a script that an agent may have committed.
VERIFY = "test ! -e check.sh || sh ./check.sh || exit 1; test -e poison/ok || ! ls broken-* > /dev/null 2>&1"
#: The relative frequency of each family of actions. Actions of `identity` are rare, because they take seconds.
_WEIGHTS = {"work": 3, "refs": 4, "configuration": 3, "folders": 3, "trees": 3, "nested": 3, "identity": 1}
_KILLED_AT = (
    "at-5",
    "at-20",
    "at-50",
    "at-100",
    "at-200",
    "at-400",
    "at-800",
)  # milliseconds after the start of the operation
_OPTIONS = {"merge": ("release", "verify", "dry", "squash", "failed"), "remove": ("discard",), "undo": ("release",)}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the lead or the user.

    The kinds are `spawn`, `wait`, `review`, `merge`, `undo`, `remove`, `stop`, `tell`, `commit`, `gc` and `kill`.
    """

    kind: str
    agents: tuple[int, ...] = ()  #: the numbers of agents, from 1, in the order of their spawns
    options: tuple[str, ...] = ()
    spawns: tuple[tuple[str, ...], ...] = ()  #: the actions of each agent

    def __str__(self) -> str:
        spawned = ", ".join(" + ".join(actions) for actions in self.spawns)
        return " ".join(filter(None, (self.kind, *map(str, self.agents), *self.options, spawned)))

    @classmethod
    def parse(cls, text: str) -> Self:
        kind, _, rest = text.strip().partition(" ")
        if kind == "spawn":
            return cls(kind, spawns=tuple(tuple(_split(one, "+")) for one in _split(rest, ",")))
        words = rest.split()
        numbers = tuple(int(word) for word in words if word.isdecimal())
        return cls(kind, numbers, tuple(word for word in words if not word.isdecimal()))


@dataclass(frozen=True, slots=True)
class Plan:
    """The repository's states and the operations of a history."""

    states: tuple[str, ...]  #: one of `MADE`, then any of `DONE`
    operations: tuple[Operation, ...]

    def __str__(self) -> str:
        return f"{' + '.join(self.states)} | {'; '.join(map(str, self.operations))}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a plan from its line of text.

        Raises:
            ValueError: A state or an action is unknown.
        """
        states, _, operations = text.partition("|")
        plan = cls(tuple(_split(states, "+")), tuple(Operation.parse(one) for one in _split(operations, ";")))
        actions = [action for one in plan.operations for actions in one.spawns for action in actions]
        if unknown := ({*plan.states} - MADE.keys() - DONE.keys()) | ({*actions} - ACTIONS.keys()):
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        return plan


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def plan_of(seed: str, number: int) -> Plan:
    """Draw the plan of the seed's history with this number."""
    source = random.Random(f"{seed}.{number}")
    made = source.choice(list(MADE)) if source.random() < 0.4 else "plain"
    done = source.sample(list(DONE), source.choice((0, 0, 1, 1, 2)))
    if made == "unborn":  # the other states need a commit
        done = []
    if made == "core.worktree":  # with both, git would use core.worktree in all worktrees (git-worktree(1))
        done = [name for name in done if name != "configured worktrees"]
    drawn = _Drawing(source)
    drawn.spawn(source.randint(1, 3))
    for _ in range(source.randint(3, 7)):
        drawn.go_on()
    return Plan((made, *done), tuple(drawn.operations))


class _Drawing:
    """A plan's operations that are drawn so far."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.operations: list[Operation] = []
        self.agents = 0

    def spawn(self, count: int) -> None:
        self.operations.append(Operation("spawn", spawns=tuple(self._actions() for _ in range(count))))
        self.agents += count
        if self.source.random() < 0.2:
            self._add(self.source.choice(("review", "stop", "tell")))
        self._add("wait")

    def go_on(self) -> None:
        kinds = {
            "merge": 6,
            "remove": 3,
            "undo": 2,
            "review": 3,
            "spawn": 3,
            "tell": 1,
            "commit": 1,
            "gc": 1,
            "kill": 1,
        }
        kind = self.source.choices(list(kinds), list(kinds.values()))[0]
        if kind == "spawn":
            self.spawn(1)
        elif kind == "kill":
            self.operations.append(Operation(kind, options=(self.source.choice(_KILLED_AT),)))
            self.go_on()
        else:
            self._add(kind)

    def _add(self, kind: str) -> None:
        named: tuple[int, ...] = ()
        if kind in ("merge", "remove", "stop", "tell"):
            count = 1 if kind in ("stop", "tell") else self.source.randint(1, min(3, self.agents))
            named = tuple(self.source.sample(range(1, self.agents + 1), count))
        options = tuple(option for option in _OPTIONS.get(kind, ()) if self.source.random() < 0.25)
        self.operations.append(Operation(kind, named, options))

    def _actions(self) -> tuple[str, ...]:
        return tuple(self._action() for _ in range(self.source.choice((1, 1, 2))))

    def _action(self) -> str:
        family = self.source.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        return self.source.choice(list(FAMILIES[family]))
