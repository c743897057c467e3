"""Records for tests: a store with agents, and kinds of damage to its file."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from forkjoin.core.agent_spec import Spec
from forkjoin.core.event import Said
from forkjoin.core.model import Agent
from forkjoin.core.session import Call
from forkjoin.store.rows import NewAgent, Progress
from forkjoin.store.store import Store

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
    """Record agents with long tasks and events, so that the database has many pages."""
    await store.projects.get_or_add("/repository/.git")
    new = [new_agent(f"agent-{n}", task=f"task {n} " * 50) for n in range(1, count + 1)]
    agents = await store.lifecycle.spawn(new, place, Call("relay", "1"))
    for agent in agents:
        await store.events.add(agent, [(Said(f"{agent.id} said {n} " * 20), n) for n in range(10)], Progress(10, None))
    return [await store.agents.get(agent.number) for agent in agents]


#: Copies the first agent. Every third copy has failed, and every second one is merged.
_COPY = """
WITH RECURSIVE copy (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM copy WHERE n < :count)
INSERT INTO agent ({columns}) SELECT {values} FROM agent, copy WHERE agent.number = 1
"""
_CHANGED = {
    "number": "n",
    "name": "'agent-' || n",
    "branch": "'forkjoin/a' || n || '-agent-' || n",
    "state": "iif(n % 3, 'succeeded', 'failed')",
    "merge": "iif(n % 2, 'unmerged', 'merged')",
    "port_base": "0",
}


def multiply(file: Path, count: int) -> None:
    """Copy the first agent until there are `count` agents. All copies have ended."""
    with closing(sqlite3.connect(file)) as connection, connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(agent)")]
        values = (_CHANGED.get(column, f"agent.{column}") for column in columns)
        connection.execute(_COPY.format(columns=", ".join(columns), values=", ".join(values)), {"count": count})
        connection.execute("INSERT INTO task SELECT number, task FROM task, agent WHERE number > 1")
        copied = "number, result.attempt, result"
        connection.execute(f"INSERT INTO result SELECT {copied} FROM result, agent WHERE number > 1")


def _empty(data: bytes) -> bytes:
    return b""


def _halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _scramble(data: bytes) -> bytes:
    return random.Random(1).randbytes(len(data))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {"empty": _empty, "halved": _halve, "random": _scramble}


def damage(file: Path, how: str) -> bytes:
    """Damage a file, and return its new content."""
    data = DAMAGES[how](file.read_bytes())
    file.write_bytes(data)
    return data
