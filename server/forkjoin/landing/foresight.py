"""Which agents' work conflicts before it is merged: that of running ones too, as it is in their worktrees now.

What was compared once is remembered by its commits, so that looking again costs what has changed since.
"""

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from forkjoin.branch import git
from forkjoin.branch.clash import find_clashes
from forkjoin.branch.snapshot import objects_aside, snapshot
from forkjoin.error import ForkjoinError
from forkjoin.model import FINAL, Agent, Merge, State
from forkjoin.rooms import Rooms

log = logging.getLogger(__name__)

#: Between two looks at what runs: so long at least, and so many times as long as the last look took.
_REST_S, _SHARE = 15.0, 20

#: How many comparisons are remembered.
_REMEMBERED = 20_000

#: More agents of one repository than this are not compared unasked.
_MOST = 40


@dataclass(frozen=True, slots=True)
class Clash:
    """Two that conflict: agents' ids, or an agent's and a branch."""

    one: str
    other: str
    files: tuple[str, ...]


class Foresight:
    """What is known of conflicts to come."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._files: dict[frozenset[str], tuple[str, ...]] = {}
        self.known: dict[int, list[Clash]] = {}  #: for each project where agents run, as of the last look

    async def look(self, project: int, agents: Sequence[Agent], target: str | None) -> list[Clash]:
        """Which of these conflict, with each other and with the target, a branch by its full name."""
        common_dir = (await self._rooms.store.project_numbered(project)).common_dir
        with objects_aside(common_dir) as aside:
            commits = {agent.id: await self._commit_of(common_dir, agent, aside) for agent in agents}
            sides = [(name, commit) for name, commit in commits.items() if commit]
            if target and (tip := await git.tip(common_dir, target)):
                sides.append((git.short(target), tip))
            pairs = list(itertools.combinations(sides, 2))
            await self._compare(common_dir, [(one, other) for (_, one), (_, other) in pairs], aside)
        found = (Clash(one[0], other[0], self._files[frozenset((one[1], other[1]))]) for one, other in pairs)
        return [clash for clash in found if clash.files]

    async def _commit_of(self, common_dir: str, agent: Agent, aside: dict[str, str]) -> str | None:
        """What an agent has done so far; none where that is nothing."""
        if agent.state in FINAL:
            result = await self._rooms.store.result(agent.number)
            commit = await git.tip(common_dir, f"refs/heads/{agent.branch}") or (result.commit if result else None)
        else:
            commit = await snapshot(common_dir, Path(agent.worktree), aside) if agent.prepared else None
        return None if commit == agent.base else commit

    async def _compare(self, common_dir: str, pairs: Iterable[tuple[str, str]], aside: dict[str, str]) -> None:
        """Know of each pair in which files it conflicts."""
        new = {frozenset(pair): pair for pair in pairs if frozenset(pair) not in self._files}
        if new:
            clashes = await find_clashes(common_dir, list(new.values()), aside)
            self._files |= dict(zip(new, clashes, strict=True))
        for oldest in list(self._files)[: max(0, len(self._files) - _REMEMBERED)]:
            del self._files[oldest]

    async def watch(self) -> None:
        """Look again and again at the repositories where agents run."""
        while True:
            began = anyio.current_time()
            await self._look_at_all()
            await anyio.sleep(max(_REST_S, _SHARE * (anyio.current_time() - began)))

    async def _look_at_all(self) -> None:
        running = {agent.project for agent in await self._rooms.store.live() if agent.state is State.RUNNING}
        for project in self.known.keys() - running:
            del self.known[project]
        for project in running:
            agents = [agent for agent in await self._rooms.store.agents(project, everything=False) if counts(agent)]
            try:
                self.known[project] = await self.look(project, agents[:_MOST], None)
            except (ForkjoinError, OSError) as error:  # it is only a comfort
                log.info("conflicts in project %d could not be foreseen: %s", project, error)


def counts(agent: Agent) -> bool:
    """Whether an agent's work is there, and is yet to be merged."""
    return agent.prepared and agent.removed is None and agent.merge not in (Merge.MERGED, Merge.NOTHING)
