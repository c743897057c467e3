"""Records for tests: a database with agents in it, and the ways in which a file is damaged."""

import random
from collections.abc import Callable
from pathlib import Path

from forkjoin.event import Said
from forkjoin.model import Agent
from forkjoin.record.rows import NewAgent, Progress
from forkjoin.record.store import Store
from forkjoin.session import Call
from forkjoin.spec import Spec

NOBODY = Call("", "")


def new_agent(name: str, project: int = 1, *, derived: bool = False, task: str = "a task") -> NewAgent:
    return NewAgent(
        project=project,
        lead="lead",
        name=name,
        derived=derived,
        spec=Spec(task=task, verify="true"),
        base="0" * 40,
        checkout="/checkout",
        conversation="c",
        environment="e",
    )


def place(number: int, name: str) -> tuple[str, str]:
    return f"forkjoin/a{number}-{name}", f"/worktrees/a{number}-{name}"


async def fill(store: Store, count: int) -> list[Agent]:
    """Agents with tasks and events of some size, so that the database has many pages."""
    await store.project("/repository/.git")
    new = [new_agent(f"agent-{n}", task=f"task {n} " * 50) for n in range(1, count + 1)]
    agents = await store.spawn(new, place, Call("relay", "1"))
    for agent in agents:
        await store.note(agent, [(Said(f"{agent.id} said {n} " * 20), n) for n in range(10)], Progress(10, None))
    return [await store.agent(agent.number) for agent in agents]


def _empty(data: bytes) -> bytes:
    return b""


def _halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _scramble(data: bytes) -> bytes:
    return random.Random(1).randbytes(len(data))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {"empty": _empty, "halved": _halve, "random": _scramble}


def damage(file: Path, how: str) -> bytes:
    """Damage a file; what is in it then."""
    data = DAMAGES[how](file.read_bytes())
    file.write_bytes(data)
    return data
