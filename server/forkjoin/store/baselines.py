"""The records of baselines: the state before an agent's program ran, with which a later state is compared."""

import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from forkjoin.core.model import Agent
from forkjoin.store.database import Records


@dataclass(frozen=True, slots=True)
class RefsBaseline:
    """The refs of a repository when an agent's attempt began."""

    at: float  #: seconds since the epoch
    listing: str


class Baselines(Records):
    """The part of the store for baselines, and for records that explain later changes."""

    async def set_refs(self, agent: Agent, listing: str) -> None:
        """Record the repository's refs as the agent's baseline.

        Does nothing if a baseline was recorded since the agent's last result.
        """
        refs = zlib.compress(listing.encode(errors="surrogateescape"), 1)
        await self._database.execute("add_refs_before", announce=False, agent=agent.number, at=time.time(), refs=refs)

    async def refs(self, agent: Agent) -> RefsBaseline | None:
        """Return the baseline that `set_refs` recorded, or None."""
        row = await self._database.read("refs_before", agent=agent.number)
        return row and RefsBaseline(row["at"], zlib.decompress(row["refs"]).decode(errors="surrogateescape"))

    async def set_setup_files(self, agent: Agent, files: bytes) -> None:
        """Record the fingerprint of the files that setup wrote in the agent's worktree."""
        await self._database.execute("set_set_up", announce=False, agent=agent.number, files=files)

    async def setup_files(self, agent: Agent) -> bytes:
        """Return the fingerprint that `set_setup_files` recorded, or empty bytes."""
        return await self._database.read_one(bytes, "set_up_files", agent=agent.number) or b""

    async def active_branches(self, agent: Agent, branches: Iterable[str], since: float) -> set[str]:
        """Return the branches of agents that were active or removed since then.

        Args:
            branches: Only these branches of the project.
            since: Seconds since the epoch.
        """
        asked = {"project": agent.project, "branches": tuple(branches), "since": since}
        return {row["branch"] for row in await self._database.read_rows("explained_branches", **asked)}

    async def ended_branches(self, agent: Agent, since: float) -> dict[str, str]:
        """Return the branches of other agents that have ended since then.

        Returns:
            The commit of each agent's result, by branch.
        """
        asked = {"project": agent.project, "agent": agent.number, "since": since}
        return {row["branch"]: row["commit"] for row in await self._database.read_rows("branches_left", **asked)}

    async def merge_commits(self, project: int, refs: Iterable[str]) -> set[tuple[str, str]]:
        """Return the commits that merges moved these refs to, as (ref, commit)."""
        found = await self._database.read_rows("merge_commits", project=project, refs=tuple(refs))
        return {(row["target"], row["commit"]) for row in found}
