"""One complete use of forkjoin through a real relay and daemon: spawn, wait, merge and remove."""

from pathlib import Path

from support.harness import Lead, git


async def test_a_lead_spawns_agents_merges_their_work_and_removes_their_worktrees(lead: Lead, repository: Path) -> None:
    answer = await lead.call(
        "spawn_agents",
        agents=[
            {"name": "left", "task": "echo left > left.txt; git add .; git commit -qm left; echo did left"},
            {"name": "right", "task": "echo right > right.txt; echo did right"},
        ],
    )
    assert [agent["id"] for agent in answer["agents"]] == ["a1", "a2"]
    ended = await lead.call("wait_agents")
    assert [(one["name"], one["state"], one["summary"]) for one in ended["finished"]] == [
        ("left", "succeeded", "did left"),
        ("right", "succeeded", "did right"),
    ]
    merge = await lead.call("merge_worktree", ids=["left", "right"], verify="test -f left.txt")
    assert [one["id"] for one in merge["merged"]] == ["a1", "a2"]
    assert (repository / "right.txt").read_text() == "right\n"
    assert git(repository, "status", "--porcelain") == ""
    removed = await lead.call("remove_worktrees", ids=["a1", "a2"])
    assert [one["id"] for one in removed["removed"]] == ["a1", "a2"]
    assert git(repository, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
