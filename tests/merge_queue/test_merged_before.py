"""What is in one target, and is merged into another: however that fares, it stays merged."""

from pathlib import Path

import anyio
from support.harness import GIVE_UP_S, Lead, git


async def test_what_is_merged_stays_so_when_another_target_rejects_it_and_its_name_is_anothers(
    lead: Lead, repository: Path
) -> None:
    git(repository, "branch", "release")
    first = (await lead.call("spawn_agent", task="echo one > one.txt", name="again"))["id"]
    await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
    await lead.call("merge_worktree", ids=[first])
    await lead.call("spawn_agent", task="echo two > two.txt", name="again")
    with anyio.fail_after(GIVE_UP_S):
        landed = await lead.call("merge_worktree", ids=[first], into="release", verify="test ! -e one.txt")
    assert [one["id"] for one in landed["rejected"]] == [first]
    (listed,) = (await lead.call("list_agents", ids=[first]))["agents"]
    assert listed["merge"] == "merged"
