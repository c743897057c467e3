"""The records of scratch worktrees, in which merges are verified."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import Json, TypeAdapter

from forkjoin.core.merge_job import MergeJob
from forkjoin.core.settings import RepositorySettings
from forkjoin.store.database import Records, transaction
from forkjoin.store.port_blocks import find_ports
from forkjoin.store.queries import Queries


@dataclass(frozen=True, slots=True)
class ScratchWorktree:
    """A worktree in which merges into one target are verified, one after the other."""

    number: int
    project: int
    target: str  #: a full ref name
    recipe: Json[RepositorySettings]  #: the configuration that made it ready, and tears it down
    checkout: str  #: path of the user's checkout that it shares files with; empty for a bare repository
    port_base: int  #: the first port of its block of ports; 0 if it has none
    used: float  #: when a merge last used it, in seconds since the epoch
    retired: bool  #: whether no merge uses it any more, so that it should be removed
    ready: str  #: the handle of the verify run for which the worktree was made ready; empty if there is none
    tip: str  #: the commit whose verify run left ignored files in the worktree; empty if no such file may stay


_scratch_worktree = TypeAdapter(ScratchWorktree).validate_python


class ScratchWorktrees(Records):
    """The part of the store for scratch worktrees."""

    @transaction(announce=False)
    def take(self, q: Queries, job: MergeJob, recipe: RepositorySettings) -> ScratchWorktree:
        """Return the scratch worktree for a job with this configuration.

        A new one is recorded if the target has no scratch worktree with the same checkout and configuration. In that
        case the target's other scratch worktrees are retired, except for the one that was used last.
        """
        now, target = time.time(), {"project": job.project, "target": job.target}
        number = q.find_scratch(**target, recipe=recipe, checkout=job.checkout)
        if number is None:
            q.retire_replaced(**target)
            base = find_ports(q, self._database.first_port).take(recipe.ports)
            number = q.add_scratch(**target, recipe=recipe, checkout=job.checkout, port_base=base, used=now)
        q.use_scratch(number=number, used=now)
        return _scratch_worktree(q.scratch(number=number))

    async def all(self) -> list[ScratchWorktree]:
        return [_scratch_worktree(row) for row in await self._database.read_rows("scratches")]

    async def set_ready(self, number: int, ready: str, tip: str) -> None:
        """Set the fields `ready` and `tip` of a scratch worktree."""
        await self._database.execute("set_scratch", announce=False, number=number, ready=ready, tip=tip)

    async def retire(self, number: int) -> None:
        await self._database.execute("retire_scratch", announce=False, number=number)

    async def retire_unused(self, numbers: Iterable[int], before: float) -> None:
        """Retire these worktrees, and worktrees that were last used before that time.

        A worktree of a target that a merge is queued for is never retired.
        """
        await self._database.execute("retire_unused", announce=False, numbers=tuple(numbers), before=before)

    async def delete(self, number: int) -> None:
        """Delete the record of a removed worktree, which frees its ports."""
        await self._database.execute("forget_scratch", announce=False, number=number)
