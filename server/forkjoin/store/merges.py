"""The records of merge jobs: the merge queue, and the merges that were made."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

from forkjoin.core.merge_job import MergeJob, MergeJobState
from forkjoin.core.model import Agent, Merge
from forkjoin.core.session import Call
from forkjoin.store import rows
from forkjoin.store.calls import remember
from forkjoin.store.database import Records, transaction
from forkjoin.store.new_agents import add_agents
from forkjoin.store.queries import Queries


class Merges(Records):
    """The part of the store for merge jobs."""

    @transaction()
    def add(self, q: Queries, job: rows.NewMergeJob, call: Call) -> MergeJob:
        """Record a new merge job, and mark its agents' branches as queued."""
        number: int = q.add_landing(**asdict(job), created=time.time())
        if not job.dry_run:
            for agent in job.agents:
                q.queue_merge(number=agent)
        remember(q, call, {"landing": number})
        return rows.merge_job(q.landing(number=number))

    async def get(self, number: int) -> MergeJob:
        return rows.merge_job(await self._database.read("landing", number=number))

    async def open(self) -> list[MergeJob]:
        """Return the merge jobs that are not done, oldest first."""
        return await self._jobs("open_landings")

    async def set_state(self, job: MergeJob, state: MergeJobState, move: str | None = None) -> None:
        """Record the state of a merge job.

        Args:
            move: JSON that describes the move of the target that is about to start, or None.
        """
        await self._database.execute("set_landing", number=job.number, state=state, move=move)

    @transaction()
    def finish(
        self,
        q: Queries,
        job: MergeJob,
        merges: Mapping[int, Merge],
        undone: Iterable[int],
        answer: Callable[[Sequence[int]], str],
        new: Sequence[rows.NewAgent] = (),
        place: rows.Place = lambda _number, _name: ("", ""),
    ) -> None:
        """Record the end of a merge job, with new agents that resolve its conflicts.

        Args:
            merges: The outcomes of branches, by the agent's number. A branch without an outcome becomes unmerged
                again, unless another job has queued the branch.
            undone: Numbers of agents whose branches are no longer merged.
            answer: A function that returns the job's answer as JSON, given the numbers of the new agents.
        """
        numbers = add_agents(q, self._database.first_port, new, place) if new else []
        q.end_landing(number=job.number, answer=answer(numbers))
        q.delete_verdicts(landing=job.number)
        for number, merge in merges.items():
            q.set_landed(number=number, merge=merge)
        for number in undone:
            q.set_undone(number=number)
        q.unqueue_merges(agents=tuple(job.agents))

    # -- outcomes of verify

    async def verify_failure(self, job: int, commit: str) -> str | None:
        """Return why verify failed on a commit in this job.

        Returns an empty string if verify passed, and None if verify has not run.
        """
        return await self._database.read_one(str, "verdict", landing=job, tip=commit)

    async def set_verify_failure(self, job: int, commit: str, why: str) -> None:
        """Record the outcome of verify on a commit in this job.

        Args:
            why: Why verify failed, or an empty string if verify passed.
        """
        await self._database.execute("set_verdict", announce=False, landing=job, tip=commit, why=why)

    # -- finished jobs

    async def into(self, project: int, target: str) -> list[MergeJob]:
        """Return the jobs that moved the target, newest first.

        Jobs that were undone later are included.
        """
        return await self._jobs("merges", project=project, target=target)

    async def not_undone(self, project: int, target: str) -> list[MergeJob]:
        """Return the jobs that moved the target and were not undone, newest first.

        A job that is about to be undone is left out.
        """
        return await self._jobs("moves", project=project, target=target)

    async def squash_commits(self, agent: Agent) -> list[str]:
        """Return the commits that the agent's branch was squashed into."""
        return [row["made"] for row in await self._database.read_rows("squashes", id=agent.id)]

    async def last_squash(self, agent: Agent, job: MergeJob) -> tuple[str | None, str] | None:
        """Return the last squash of the agent's branch into the job's target.

        Squashes that were undone don't count.

        Returns:
            The branch's tip at that time, which is None if it was not recorded, and the new commit. None if there was
            no squash.
        """
        target = {"project": job.project, "target": job.target}
        return await self._database.read_one(
            lambda row: (row["tip"], row["made"]), "squashed_at", id=agent.id, **target
        )

    async def revert_of(self, agent: Agent) -> tuple[str, str] | None:
        """Return the commit that reverted the last merge of the agent's branch.

        Returns:
            The target and the commit, or None if the merge was not reverted.
        """
        found = await self._database.read("revert_of", id=agent.id)
        return (found["target"], found["made"]) if found and found["made"] else None

    async def resolvers(self, project: int, target: str) -> list[Agent]:
        """Return the unmerged agents that resolve a conflict with the target, or have.

        The newest agent comes first.
        """
        return await self._database.read_agents("resolvers", project=project, target=target)

    async def _jobs(self, query: str, **values: object) -> list[MergeJob]:
        return [rows.merge_job(row) for row in await self._database.read_rows(query, **values)]
