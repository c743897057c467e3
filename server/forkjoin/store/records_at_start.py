"""Records of refs and files from before agents' programs started."""

import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from forkjoin.core.model import Agent
from forkjoin.store.transaction import Transactions


@dataclass(frozen=True, slots=True)
class RefsBefore:
    """The refs of a repository, as they were when an agent's attempt began."""

    at: float  #: seconds since the epoch
    listing: str


class Starts(Transactions):
    """The part of the store that tells of what was there before."""

    async def note_refs(self, agent: Agent, listing: str) -> None:
        """Record the refs, unless that was done since the agent's last result."""
        refs = zlib.compress(listing.encode(errors="surrogateescape"), 1)
        await self._set("add_refs_before", quiet=True, agent=agent.number, at=time.time(), refs=refs)

    async def refs_before(self, agent: Agent) -> RefsBefore | None:
        """Return what `note_refs` recorded; None where it recorded nothing."""
        row = await self._read("refs_before", agent=agent.number)
        return row and RefsBefore(row["at"], zlib.decompress(row["refs"]).decode(errors="surrogateescape"))

    async def explained_branches(self, agent: Agent, branches: Iterable[str], since: float) -> set[str]:
        """Return the branches of other agents that may have been at work since then."""
        asked = {"project": agent.project, "branches": tuple(branches), "since": since}
        return {row["branch"] for row in await self._rows("explained_branches", **asked)}

    async def branches_left(self, agent: Agent, since: float) -> dict[str, str]:
        """Return the branches of other agents that have ended since then, with the commits at which they left them."""
        asked = {"project": agent.project, "agent": agent.number, "since": since}
        return {row["branch"]: row["commit"] for row in await self._rows("branches_left", **asked)}

    async def merge_commits(self, project: int, refs: Iterable[str]) -> set[tuple[str, str]]:
        """Return the commits to which merges have moved these refs, each with its ref."""
        rows = await self._rows("merge_commits", project=project, refs=tuple(refs))
        return {(row["target"], row["commit"]) for row in rows}

    async def note_set_up(self, agent: Agent, files: bytes) -> None:
        """Record the fingerprint of the files that setup wrote in an agent's worktree."""
        await self._set("set_set_up", quiet=True, agent=agent.number, files=files)

    async def set_up_files(self, agent: Agent) -> bytes:
        """Return what `note_set_up` recorded; empty where it recorded nothing."""
        return await self._one(bytes, "set_up_files", agent=agent.number) or b""
