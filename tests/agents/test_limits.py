"""Resource limits: the result names the limit that ended an agent, and other agents continue."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CONFIG
from forkjoin.core.paths import Home
from forkjoin.process import attempt_cgroups, capacity
from support.harness import open_lead_in_memory

#: Programs that grow to several times their limit, but no further, in case nothing ends them.
TAKES_MEMORY = """
echo half > half.txt
python3 -S -c 'import time
taken = [bytearray(4_000_000) for _ in range(200)]
time.sleep(1000)'
sleep 1000
"""
FORKS = "for n in $(seq 200); do sleep 1000 & sleep {pause}; done; wait"
HOLDS_50_MB = "python3 -S -c 'taken = bytearray(50_000_000); import time; time.sleep(1000)'"


@pytest.fixture(params=["a cgroup, if it can be made", "the watchdog"])
def tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "the watchdog":
        monkeypatch.setattr(attempt_cgroups, "find_cgroup_roots", list)


@pytest.fixture
def limit(home: Home) -> Callable[[str], None]:
    """Set limits."""

    def limit(limits: str) -> None:
        (home.state / "config.toml").write_text(CONFIG.replace("[limits]", f"[limits]\nmax_running = 2\n{limits}"))

    return limit


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize(
    ("limits", "task", "error"),
    [
        ("memory_per_agent = '200MB'", TAKES_MEMORY, "ended by its memory limit of 200 MB (peak "),
        ("processes_per_agent = 50", FORKS.format(pause=0.01), "ended by its limit of 50 processes and threads (peak "),
        ("cpu_minutes_per_agent = 0.01", "while :; do :; done", "ended by its limit of 0.6 s of CPU time"),
        ("file_size = '5MB'", "head -c 6000000 /dev/zero > large", "ended by its limit of 5 MB for a file"),
    ],
)
async def test_an_agent_that_takes_too_much_fails_by_the_limit_that_its_error_names_and_others_go_on(
    repository: Path, home: Home, limit: Callable[[str], None], limits: str, task: str, error: str
) -> None:
    limit(f"{limits}\nretries = 3")
    async with open_lead_in_memory(home, repository) as lead:
        [other] = await lead.spawn("exec sleep 1000")
        await lead.until(other, state="running")
        [hog] = await lead.spawn(task)
        [result] = await lead.results(hog)
        assert (result["state"], result["error"][: len(error)]) == ("failed", error)
        assert result["summary"].startswith(error)
        assert (await lead.listed(other))["state"] == "running"
        await lead.call("stop_agents", ids=[other])


@pytest.mark.usefixtures("tier")
async def test_work_of_an_agent_that_a_limit_ended_is_kept_and_its_peak_is_in_its_full_result(
    repository: Path, home: Home, limit: Callable[[str], None]
) -> None:
    limit("memory_per_agent = '200MB'")
    async with open_lead_in_memory(home, repository) as lead:
        [hog] = await lead.run(TAKES_MEMORY)
        result = await lead.call("get_result", id=hog, detail="full")
        assert result["files_changed"] == 1
        assert result["peak_memory_mb"] >= 190


@pytest.mark.usefixtures("tier")
async def test_verify_is_under_the_limits_of_an_agent(
    repository: Path, home: Home, limit: Callable[[str], None]
) -> None:
    limit("processes_per_agent = 30")
    async with open_lead_in_memory(home, repository) as lead:
        [agent] = await lead.run("echo work > work.txt", verify=FORKS.format(pause=0.01))
        result = await lead.call("get_result", id=agent)
        assert (result["state"], result["verify"]) == ("failed", "failed")
        assert "ended by its limit of 30 processes and threads" in result["verify_output"]


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize(
    ("limits", "small", "large", "words"),
    [
        (
            "memory = '200MB'",
            HOLDS_50_MB,
            TAKES_MEMORY,
            "ended by the memory limit of 200 MB of all agents together (",
        ),
        (
            "processes = 60",
            "sleep 1000 & sleep 1000 & wait",
            FORKS.format(pause=0.05),
            "ended by the limit of 60 processes and threads of all agents together (its own: ",
        ),
    ],
)
async def test_where_all_agents_together_take_too_much_the_largest_is_ended(
    repository: Path, home: Home, limit: Callable[[str], None], limits: str, small: str, large: str, words: str
) -> None:
    limit(f"{limits}\nmemory_per_agent = 0\nprocesses_per_agent = 0")
    async with open_lead_in_memory(home, repository) as lead:
        [first] = await lead.spawn(small)
        await lead.until(first, state="running")
        [second] = await lead.spawn(large)
        [result] = await lead.results(second)
        assert (result["state"], result["error"][: len(words)]) == ("failed", words)
        assert (await lead.listed(first))["state"] == "running"
        await lead.call("stop_agents", ids=[first])


@pytest.mark.usefixtures("tier")
async def test_by_default_an_agent_may_have_half_of_what_the_daemon_s_container_may(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "find_memory", lambda: 400_000_000)
    async with open_lead_in_memory(home, repository) as lead:
        [result] = await lead.results(*await lead.spawn(TAKES_MEMORY))
        assert result["error"].startswith("ended by its memory limit of 200 MB (peak ")
