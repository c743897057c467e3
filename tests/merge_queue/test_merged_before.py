"""A second merge of a merged agent into another target: the agent stays merged, even if that merge fails."""

from pathlib import Path

import anyio
from support.harness import GIVE_UP_S, Lead, git


async def test_a_merged_agent_stays_merged_when_another_target_rejects_it(lead: Lead, repository: Path) -> None:
    git(repository, "branch", "release")
    first = (await lead.call("spawn_agent", task="echo one > one.txt", name="again"))["id"]
    await lead.call("wait_agents", ids=[first], timeout_s=GIVE_UP_S)
    await lead.call("merge_worktree", ids=[first])
    await lead.call("spawn_agent", task="echo two > two.txt", name="again")
    with anyio.fail_after(GIVE_UP_S):
        report = await lead.call("merge_worktree", ids=[first], into="release", verify="test ! -e one.txt")
    assert [one["id"] for one in report["rejected"]] == [first]
    (listed,) = (await lead.call("list_agents", ids=[first]))["agents"]
    assert listed["merge"] == "merged"
