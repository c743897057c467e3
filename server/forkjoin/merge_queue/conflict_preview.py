"""Conflicts between agents' work before it is merged, including running agents and uncommitted files.

Compared commits are cached, so that another comparison costs only what has changed since.
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
from forkjoin.workspace.agent_work import find_work_end

log = logging.getLogger(__name__)

#: The shortest pause between two regular comparisons in seconds. It is also at least `_PAUSE_FACTOR` times the
#: duration of the last comparison.
_LEAST_PAUSE_S, _PAUSE_FACTOR = 15.0, 20

#: How many compared pairs of commits are cached.
_CACHED_PAIRS = 20_000

#: How many agents of a repository are compared regularly, and how many at the request of a lead.
_MOST_WATCHED, MOST_COMPARED = 40, 150


@dataclass(frozen=True, slots=True)
class ConflictingPair:
    """Two agents whose work conflicts, or an agent whose work conflicts with a branch."""

    first: str  #: the agent's id
    second: str  #: the other agent's id, or the short name of the branch
    files: tuple[str, ...]


class ConflictPreview:
    """A cache of compared commits, and the conflicts found by the last regular comparison."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._files: dict[
            frozenset[str], tuple[str, ...]
        ] = {}  #: the conflicting files of each compared pair of commits
        #: The pairs that the last regular comparison found, by project number, for projects in which agents run.
        self.pairs: dict[int, list[ConflictingPair]] = {}

    async def compare(self, project: int, agents: Sequence[Agent], target: str | None) -> list[ConflictingPair]:
        """Return which agents' work conflicts with each other, or with the target.

        A pair consists of two agents, or of an agent and the target.

        Args:
            target: A full ref name, or `None` to compare the agents only with each other.

        Raises:
            CallerError: There are more agents than can be compared.
        """
        if len(agents) > MOST_COMPARED:
            raise CallerError(
                f"At most {MOST_COMPARED} agents are compared at once, pair by pair; name fewer in `ids`."
            )
        common_dir = (await self._services.store.projects.get(project)).common_dir
        with temporary_objects(common_dir, self._services.home.aside) as aside:
            commits = {agent.id: await self._find_commit(common_dir, agent, aside) for agent in agents}
            sides = [(name, commit) for name, commit in commits.items() if commit]
            if target and (tip := await find_tip(common_dir, target)):
                sides.append((short_name(target), tip))
            excluded = _exclude_pairs(agents)
            pairs = [pair for pair in itertools.combinations(sides, 2) if frozenset(dict(pair)) not in excluded]
            files = await self._find_files(common_dir, [(a, b) for (_, a), (_, b) in pairs], aside)
        found = (ConflictingPair(a[0], b[0], files[frozenset((a[1], b[1]))]) for a, b in pairs)
        return [pair for pair in found if pair.files]

    async def _find_commit(self, common_dir: str, agent: Agent, aside: dict[str, str]) -> str | None:
        """Return a commit of the agent's work, including uncommitted files.

        Return `None` if the agent has no worktree yet, or no work.
        """
        if agent.state in FINAL:
            commit = await find_work_end(self._services.store, common_dir, agent)
        elif agent.worktree.prepared:
            set_up = await self._services.store.baselines.setup_files(agent)
            commit = await snapshot(common_dir, Path(agent.worktree.path), aside, set_up)
        else:
            commit = None
        return None if commit == agent.worktree.base else commit

    async def _find_files(
        self, common_dir: str, pairs: Sequence[tuple[str, str]], aside: dict[str, str]
    ) -> dict[frozenset[str], tuple[str, ...]]:
        """Return the conflicting files of each pair of commits.

        Pairs that are not cached yet are merged and cached.
        """
        files = {key: self._files[key] for key in map(frozenset[str], pairs) if key in self._files}
        new = {frozenset(pair): pair for pair in pairs if frozenset(pair) not in files}
        if new:
            merges = await try_merges(common_dir, [MergePair(*pair) for pair in new.values()], NO_FSYNC, aside)
            files |= dict(zip(new, map(_conflicting_files, merges), strict=True))
            self._files |= {key: files[key] for key in new}
        for oldest in list(self._files)[: max(0, len(self._files) - _CACHED_PAIRS)]:
            del self._files[oldest]
        return files

    async def watch(self) -> None:
        """Compare the running agents of each project, repeatedly until cancelled."""
        while True:
            began = anyio.current_time()
            try:
                await self._compare_all()
            except Exception:  # a boundary: the daemon can do without the preview
                log.exception("agents' work could not be compared")
            await anyio.sleep(max(_LEAST_PAUSE_S, _PAUSE_FACTOR * (anyio.current_time() - began)))

    async def _compare_all(self) -> None:
        running = {agent.project for agent in await self._services.store.agents.live() if agent.state in RUNS}
        for project in self.pairs.keys() - running:
            del self.pairs[project]
        for project in running:
            agents = await self._services.store.agents.unmerged(project, _MOST_WATCHED)
            try:
                self.pairs[project] = await self.compare(project, agents, None)
            except (ForkjoinError, OSError) as error:  # the daemon can do without the preview
                log.info("agents' work in project %d could not be compared: %s", project, error)


def _conflicting_files(merged: TriedMerge | GitError) -> tuple[str, ...]:
    if isinstance(merged, TriedMerge):
        return tuple(map(printable, merged.conflicts))
    if "unrelated histories" in merged.stderr:
        return ("(they have no common history)",)
    raise merged


def _exclude_pairs(agents: Sequence[Agent]) -> set[frozenset[str]]:
    """Return the pairs of agents' ids whose conflicts don't matter.

    These are two candidates for the same task, and an agent with the resolver of its conflict.
    """
    pairs = itertools.combinations([agent for agent in agents if agent.candidates.first], 2)
    candidates = {frozenset((a.id, b.id)) for a, b in pairs if a.candidates.first == b.candidates.first}
    return candidates | {frozenset((agent.id, f"a{agent.conflict.agent}")) for agent in agents}
