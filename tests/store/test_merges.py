"""The records of merge jobs: the outcomes of branches that several jobs have queued."""

import pytest
from forkjoin.core.merge_job import MergeJob
from forkjoin.core.model import Merge
from forkjoin.store.rows import NewMergeJob
from forkjoin.store.store import Store
from support.records import NOBODY, new_agent, place


async def queue(store: Store, target: str, *, dry_run: bool = False) -> MergeJob:
    return await store.merges.add(NewMergeJob(1, "lead", (1,), f"refs/heads/{target}", None, dry_run, ""), NOBODY)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_queued_branch_is_unmerged_when_its_last_merge_job_ends_without_an_outcome(
    store: Store, first: int
) -> None:
    """Two merge jobs end at the same time, and each has seen the other open."""
    await store.lifecycle.spawn([new_agent("one")], place, NOBODY)
    jobs = [await queue(store, "main"), await queue(store, "release")]
    await queue(store, "main", dry_run=True)
    for job, merge in ((jobs[first], Merge.QUEUED), (jobs[1 - first], Merge.UNMERGED)):
        await store.merges.finish(job, {}, (), str)
        assert (await store.agents.get(1)).merge is merge


async def test_a_merge_job_without_an_outcome_keeps_the_outcome_of_another_job(store: Store) -> None:
    await store.lifecycle.spawn([new_agent("one")], place, NOBODY)
    one, other = await queue(store, "main"), await queue(store, "release")
    await store.merges.finish(one, {1: Merge.REJECTED}, (), str)
    await store.merges.finish(other, {}, (), str)
    assert (await store.agents.get(1)).merge is Merge.REJECTED
