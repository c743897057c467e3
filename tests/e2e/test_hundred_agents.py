"""Many agents spawned in one call, with a limit of five running agents."""

from pathlib import Path

import pytest
from conftest import processes_of
from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, git, limit, open_lead


@pytest.mark.parametrize("agents", [12, pytest.param(100, marks=pytest.mark.soak)])
async def test_many_agents_run_at_most_five_at_a_time_and_removing_them_leaves_no_refs_locks_or_processes(
    agents: int, repository: Path, home: Home
) -> None:
    limit(home, max_running=5)
    log = home.state / "log"
    # Each "+" and "-" is one atomic append, so their running sum is the number of agents that run at a time.
    work = "echo x > $FORKJOIN_AGENT.txt; sleep 0.05"
    task = f'echo "+ $FORKJOIN_AGENT" >> {log}; {work}; echo "- $FORKJOIN_AGENT" >> {log}'
    async with open_lead(repository) as lead:
        answer = await lead.call("spawn_agents", agents=[{"name": f"n{n}"} for n in range(agents)], task=task)
        ids = [agent["id"] for agent in answer["agents"]]
        ended = await lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S * 3)
        assert {one["state"] for one in ended["finished"]} == {"succeeded"}
        assert len(ended["finished"]) == agents
        merge = await lead.call("merge_worktree", ids=ids)
        assert len(merge["merged"]) == agents
        await lead.call("remove_worktrees", ids=ids)
    lines = [line.split() for line in log.read_text().splitlines()]
    running = most = 0
    for sign, _ in lines:
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert (running, most <= 5) == (0, True)
    started = [name for sign, name in lines if sign == "+"]
    assert sorted(started) == sorted(ids)
    assert len(list(repository.glob("a*.txt"))) == agents
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert list((repository / ".git").glob("**/*.lock")) == [repository / ".git" / "forkjoin.lock"]
    assert list((repository / ".git").glob("worktrees/*")) == []
    assert [words for words in processes_of(home.state).values() if "daemon" not in words] == []
