"""The durations of recorded loads under forkjoin's scheduler, a thread pool and waves, on a fake clock.

Run it with `python -m bench.makespan`. Each load in `bench/loads/` says how it was recorded. A load is run in three
ways, with the same number of tasks at once:

- forkjoin: all agents are spawned at once. Only the tasks take time.
- pool: threads take tasks first in, first out. A task is submitted once its dependencies have ended. A task with a key
  waits for a lock in its thread.
- waves: a wave has all tasks whose dependencies are in earlier waves. A pool runs each wave after the one before.

The lower bound is the longest of: the longest chain of tasks, all work spread evenly, and all tasks with the same key.
"""

import heapq
import json
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from forkjoin.core.agent_spec import Spec
from support.scheduling.script import History, Script, Turn
from support.scheduling.simulator import BEGIN, World

LOADS = Path(__file__).with_name("loads")
WIDTHS = (2, 4, 8)


@dataclass(frozen=True)
class Task:
    """A task of a load."""

    name: str
    s: float  #: duration in seconds
    lead: str = "lead"
    after: Sequence[str] = ()
    exclusive: str | None = None


def read_load(file: Path) -> list[Task]:
    """Return the tasks of a load. Each task comes after its dependencies."""
    return [Task(**task) for task in json.loads(file.read_text())["tasks"]]


def run_forkjoin(tasks: Sequence[Task], width: int) -> float:
    numbers = {task.name: number for number, task in enumerate(tasks, 1)}
    scripts = [
        Script(
            spec=Spec(task=task.name, exclusive=task.exclusive),
            lead=task.lead,
            after=tuple(numbers[name] for name in task.after),
            turns=(Turn(task.s),),
        )
        for task in tasks
    ]
    world = World(History(scripts, width, step_s=0)).run()
    return max(agent.timing.ended or 0 for agent in world.agents()) - BEGIN


def run_pool(tasks: Sequence[Task], width: int) -> float:
    awaited = {task.name: {*task.after} for task in tasks}
    submitted = deque(task for task in tasks if not task.after)
    unlocked = defaultdict[str | None, float](float)  #: by key: when its lock is free
    running: list[tuple[float, str]] = []
    now = 0.0
    while submitted or running:
        while submitted and len(running) < width:
            task = submitted.popleft()
            end = max(now, unlocked[task.exclusive]) + task.s
            if task.exclusive:
                unlocked[task.exclusive] = end
            heapq.heappush(running, (end, task.name))
        now, ended = heapq.heappop(running)
        for task in tasks:
            if ended in awaited[task.name]:
                awaited[task.name].discard(ended)
                if not awaited[task.name]:
                    submitted.append(task)
    return now


def run_waves(tasks: Sequence[Task], width: int) -> float:
    return sum(run_pool(wave, width) for wave in split_into_waves(tasks))


def split_into_waves(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Yield each wave: the tasks whose dependencies are all in earlier waves."""
    wave: dict[str, int] = {}
    for task in tasks:
        wave[task.name] = max((wave[name] + 1 for name in task.after), default=0)
    for number in range(max(wave.values()) + 1):
        yield [Task(task.name, task.s, exclusive=task.exclusive) for task in tasks if wave[task.name] == number]


def lower_bound(tasks: Sequence[Task], width: int) -> float:
    ends: dict[str, float] = {}
    alone = dict.fromkeys((task.exclusive for task in tasks if task.exclusive), 0.0)
    for task in tasks:
        ends[task.name] = task.s + max((ends[name] for name in task.after), default=0)
        if task.exclusive:
            alone[task.exclusive] += task.s
    return max(*ends.values(), *alone.values(), sum(task.s for task in tasks) / width)


def main() -> None:
    print(f"{'load':10} tasks at once {'bound, s':>10} {'forkjoin':>16} {'pool':>16} {'waves':>16}")
    for file in sorted(LOADS.glob("*.json")):
        tasks = read_load(file)
        for width in WIDTHS:
            bound = lower_bound(tasks, width)
            took = (run(tasks, width) for run in (run_forkjoin, run_pool, run_waves))
            columns = " ".join(f"{s:9.1f} x {s / bound:.2f}" for s in took)
            print(f"{file.stem:10} {len(tasks):5} {width:7} {bound:10.1f} {columns}")


if __name__ == "__main__":
    main()
