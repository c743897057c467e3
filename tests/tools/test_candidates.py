"""Candidates from spawn to merge, through the real relay."""

from pathlib import Path

from support.branches import contents
from support.harness import GIVE_UP_S, Lead
from support.merges import check_sound, ids_of

TASK = """n=${FORKJOIN_NAME##*-}
case $n in
  1) echo fine > answer;;
  2) echo "rather fine" > answer;;
  3) echo "the finest of all, and wrong" > answer; echo > broken;;
esac"""


async def test_the_best_of_three_candidates_is_the_base_of_the_next_agent_and_is_merged(
    lead: Lead, repository: Path
) -> None:
    agents = [
        {"name": "answer", "task": TASK, "candidates": 3, "judge": "wc -c < answer", "verify": "test ! -e broken"},
        {"name": "shout", "task": "tr a-z A-Z < answer > loud", "after": ["answer"]},
    ]
    spawned = await lead.call("spawn_agents", agents=agents)
    assert [agent["name"] for agent in spawned["agents"]] == ["answer-1", "answer-2", "answer-3", "shout"]
    assert spawned["waves"] == [["a1", "a2", "a3"], ["a4"]]
    waited = await lead.call("wait_agents", ids=["answer", "shout"], timeout_s=GIVE_UP_S)
    states = {agent["name"]: agent["state"] for agent in waited["finished"]}
    assert states == {"answer-1": "succeeded", "answer-2": "succeeded", "answer-3": "failed", "shout": "succeeded"}
    result = await lead.call("get_result", id="answer")
    assert result["name"] == "answer-2"
    for row in result["candidates"]:
        assert row.pop("duration_s") >= 0
    assert result["candidates"] == [
        {"id": "a2", "state": "succeeded", "verify": "passed", "score": 12, "lines": 1, "won": True},
        {"id": "a1", "state": "succeeded", "verify": "passed", "score": 5, "lines": 1},
        {"id": "a3", "state": "failed", "verify": "failed", "lines": 2},
    ]
    assert "+rather fine" in await lead.call("read_diff", id="answer")
    merged = await lead.call("merge_worktree", ids=["shout", "answer"])
    assert ids_of(merged, "merged") == ["a2", "a4"], "the ground first"
    files = contents(repository)
    assert (files["answer"], files["loud"]) == (b"rather fine\n", b"RATHER FINE\n")
    check_sound(repository)
