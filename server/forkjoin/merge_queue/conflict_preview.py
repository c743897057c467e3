"""Which agents' work conflicts before it is merged: that of running ones too, as it is in their worktrees now.

What was compared once is remembered by its commits, so that looking again costs what has changed since.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from forkjoin.core.error import CallerError, ForkjoinError, GitError
from forkjoin.core.model import FINAL, RUNS, Agent
from forkjoin.git.file_names import printable
from forkjoin.git.merge_tree import MergePair, TriedMerge, try_merges
from forkjoin.git.objects import temporary_objects
from forkjoin.git.refs import find_tip, short_name
from forkjoin.git.safe_options import NO_FSYNC
from forkjoin.git.worktrees.worktree_snapshot import snapshot
from forkjoin.services import Services
from forkjoin.workspace.agent_work import find_end

log = logging.getLogger(__name__)

#: Between two looks at what runs: so long at least, and so many times as long as the last look took.
_REST_S, _SHARE = 15.0, 20

#: How many comparisons are remembered.
_REMEMBERED = 20_000

#: More agents of one repository than this are not compared unasked; or at all.
_MOST, MOST_COMPARED = 40, 150


@dataclass(frozen=True, slots=True)
class ConflictingPair:
    """Two that conflict: agents' ids, or an agent's and a branch."""

    one: str
    other: str
    files: tuple[str, ...]


class ConflictPreview:
    """What is known of conflicts to come."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._files: dict[frozenset[str], tuple[str, ...]] = {}
        self.known: dict[int, list[ConflictingPair]] = {}  #: for each project where agents run, as of the last look

    async def look(self, project: int, agents: Sequence[Agent], target: str | None) -> list[ConflictingPair]:
        """Which of these conflict, with each other and with the target, a branch by its full name."""
        if len(agents) > MOST_COMPARED:
            raise CallerError(
                f"At most {MOST_COMPARED} agents are compared at once, pair by pair; name fewer in `ids`."
            )
        common_dir = (await self._services.store.projects.get(project)).common_dir
        with temporary_objects(common_dir, self._services.home.aside) as aside:
            commits = {agent.id: await self._commit_of(common_dir, agent, aside) for agent in agents}
            sides = [(name, commit) for name, commit in commits.items() if commit]
            if target and (tip := await find_tip(common_dir, target)):
                sides.append((short_name(target), tip))
            apart = _find_apart(agents)
            pairs = [pair for pair in itertools.combinations(sides, 2) if frozenset(dict(pair)) not in apart]
            files = await self._compare(common_dir, [(one, other) for (_, one), (_, other) in pairs], aside)
        found = (ConflictingPair(one[0], other[0], files[frozenset((one[1], other[1]))]) for one, other in pairs)
        return [clash for clash in found if clash.files]

    async def _commit_of(self, common_dir: str, agent: Agent, aside: dict[str, str]) -> str | None:
        """What an agent has done so far; none where that is nothing."""
        if agent.state in FINAL:
            commit = await find_end(self._services.store, common_dir, agent)
        else:
            set_up = await self._services.store.baselines.setup_files(agent)
            commit = (
                await snapshot(common_dir, Path(agent.worktree.path), aside, set_up)
                if agent.worktree.prepared
                else None
            )
        return None if commit == agent.worktree.base else commit

    async def _compare(
        self, common_dir: str, pairs: Sequence[tuple[str, str]], aside: dict[str, str]
    ) -> dict[frozenset[str], tuple[str, ...]]:
        """In which files each pair conflicts."""
        files = {key: self._files[key] for key in map(frozenset[str], pairs) if key in self._files}
        new = {frozenset(pair): pair for pair in pairs if frozenset(pair) not in files}
        if new:
            merges = await try_merges(common_dir, [MergePair(*pair) for pair in new.values()], NO_FSYNC, aside)
            files |= dict(zip(new, map(_told, merges), strict=True))
            self._files |= {key: files[key] for key in new}
        for oldest in list(self._files)[: max(0, len(self._files) - _REMEMBERED)]:
            del self._files[oldest]
        return files

    async def watch(self) -> None:
        """Look again and again at the repositories where agents run."""
        while True:
            began = anyio.current_time()
            try:
                await self._look_at_all()
            except Exception:  # a boundary: it is only a comfort
                log.exception("conflicts could not be foreseen")
            await anyio.sleep(max(_REST_S, _SHARE * (anyio.current_time() - began)))

    async def _look_at_all(self) -> None:
        running = {agent.project for agent in await self._services.store.agents.live() if agent.state in RUNS}
        for project in self.known.keys() - running:
            del self.known[project]
        for project in running:
            agents = await self._services.store.agents.unmerged(project, _MOST)
            try:
                self.known[project] = await self.look(project, agents, None)
            except (ForkjoinError, OSError) as error:  # it is only a comfort
                log.info("conflicts in project %d could not be foreseen: %s", project, error)


def _told(merged: TriedMerge | GitError) -> tuple[str, ...]:
    """The files in which two conflict, as they can be told."""
    if isinstance(merged, TriedMerge):
        return tuple(map(printable, merged.conflicts))
    if "unrelated histories" in merged.stderr:
        return ("(they have no common history)",)
    raise merged


def _find_apart(agents: Sequence[Agent]) -> set[frozenset[str]]:
    """Those of which at most one is to be merged, by their ids: candidates for one task; or that one brings along."""
    both = itertools.combinations([agent for agent in agents if agent.candidates.first], 2)
    rivals = {frozenset((one.id, other.id)) for one, other in both if one.candidates.first == other.candidates.first}
    return rivals | {frozenset((agent.id, f"a{agent.conflict.agent}")) for agent in agents}
