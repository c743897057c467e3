"""Floods of output (fault 9): replies and memory stay bounded, and other calls are answered meanwhile."""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from conftest import processes_of
from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, Lead, open_lead

LIMIT = 64 * 1024
MEGABYTE = 1024 * 1024
CONFIG = """
[agents.talker]
kind = "claude"
command = ["{python}", "-S", "-E", "{script}"]
"""

#: A fake claude. Its task names the kind of output that floods.
TALKER = r"""
import json, sys
def say(**line): sys.stdout.write(json.dumps(line) + "\n")
def flood(part, megabytes):
    for _ in range(megabytes * 1024): sys.stdout.write(part * (1024 // len(part)))
def result(text="done"):
    say(type="result", subtype="success", is_error=False, result=text, session_id="s", total_cost_usd=0.5)
task = json.loads(sys.stdin.readline())["message"]["content"][0]["text"]
say(type="system", subtype="init", session_id="s", model="m")
match task:
    case "no JSON": flood("x" * 1023 + "\n", 100)
    case "no line end": flood("x", 200); print()
    case "a result of 6 MB": result("begin\U0001f642 " + "x" * (6 * 1024 * 1024))
    case "a result of 20 MB": result("begin\U0001f642 " + "x" * (20 * 1024 * 1024))
    case "a long line": flood("{", 20); print()
    case "after its end": result(); flood("x" * 1023 + "\n", 100)
if task not in ("a result of 6 MB", "a result of 20 MB", "after its end"): result()
sys.stdout.flush()
sys.stdin.read()
"""

#: Shell scripts, and the end of their output.
SCRIPTS = {
    "lines": "yes \"$(printf '%01000d' 7)\" | head -c 200000000; echo; echo done",
    "one line": "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo done",
    "no line end": "head -c 200000000 /dev/zero | tr '\\0' x",
    "no UTF-8": "yes \"$(printf '\\377\\376%01000d' 7)\" | head -c 50000000; echo; echo done",
}


class Watch:
    """A monitor of the daemon's memory and replies during a flood."""

    def __init__(self, daemon: psutil.Process) -> None:
        self.daemon = daemon
        self.before = self.most = daemon.memory_info().rss
        self.answers = 0

    async def look(self, other: Lead) -> None:
        while True:
            await other.call("get_status")
            self.answers += 1
            self.most = max(self.most, self.daemon.memory_info().rss)
            await anyio.sleep(0.02)

    @property
    def growth(self) -> float:
        """Return the growth of the daemon's memory, in megabytes."""
        return (self.most - self.before) / MEGABYTE


@pytest.fixture
async def other(repository: Path, home: Home, tmp_path: Path) -> AsyncIterator[Lead]:
    """Yield another lead of the same daemon."""
    script = tmp_path / "talker.py"
    script.write_text(TALKER)
    config = home.config_file.read_text().replace("[limits]", "[limits]\nmax_running = 8\nlog_megabytes = 8")
    home.config_file.write_text(config + CONFIG.format(python=sys.executable, script=script))
    async with open_lead(repository, "other") as found:
        await found.run("echo warm")
        yield found


@pytest.fixture
async def lead(repository: Path, other: Lead) -> AsyncIterator[Lead]:
    async with open_lead(repository) as found:
        yield found


@pytest.fixture
def watch(other: Lead, home: Home) -> Watch:
    (daemon,) = (pid for pid, words in processes_of(home.state).items() if "daemon\0run" in words)
    return Watch(psutil.Process(daemon))


async def flood(watch: Watch, other: Lead, lead: Lead, *specs: dict[str, Any]) -> list[tuple[str, Any]]:
    """Run agents with much output, all at once, and return their ids and results."""
    spawned = await lead.call("spawn_agents", agents=list(specs))
    ids = [agent["id"] for agent in spawned["agents"]]
    waited: Any = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.look, other)
        with anyio.fail_after(5 * GIVE_UP_S):
            waited = await lead.call("wait_agents", ids=ids, timeout_s=3600)
        tasks.cancel_scope.cancel()
    answers = [waited, await lead.call("list_agents")]
    for agent in ids:
        answers += [await lead.call("get_result", id=agent)]
        answers += [await lead.call("read_log", id=agent, raw=True, limit=48_000, **at) for at in ({}, {"tail": 500})]
        answers += [await lead.call("read_log", id=agent)]
    assert max(len(json.dumps(answer)) for answer in answers) < LIMIT
    assert watch.growth < 64
    assert watch.answers > 0
    return [(agent, await lead.call("get_result", id=agent, detail="full")) for agent in ids]


def disk(home: Home, handle: str, name: str = "output") -> int:
    """Return the bytes that a log takes on disk."""
    return os.stat(home.attempts / handle / name).st_blocks * 512


async def test_commands_that_flood_keep_the_end_of_their_output(
    lead: Lead, other: Lead, watch: Watch, home: Home, record_property: Callable[[str, object], None]
) -> None:
    """Fault 9: results have the end of a command's output, and how to read the rest."""
    verify = f"{SCRIPTS['lines']} here; exit 1"
    specs = [{"task": script} for script in SCRIPTS.values()]
    specs += [{"task": f"({SCRIPTS['lines']}) >&2; echo broken >&2; exit 3"}]
    specs += [{"task": "echo x > x.txt", "verify": verify}]
    *printed, (loud, error), (verified, refused) = await flood(watch, other, lead, *specs)
    record_property("figures", f"six floods of commands: the daemon grew by {watch.growth:.0f} MB")
    for kind, (agent, result) in zip(SCRIPTS, printed, strict=True):
        assert result["state"] == "succeeded"
        note, _, output = result["output"].partition("\n")
        assert note.startswith("[cut: ")
        assert note.endswith(f"bytes before this; read_log('{agent}', raw=true) has them]")
        assert output.endswith("x" * 1000 if kind == "no line end" else "done\n")
        assert disk(home, f"{agent}-1") < 11 * MEGABYTE
    assert (error["state"], error["error"][-11:]) == ("failed", "done\nbroken")
    assert disk(home, f"{loud}-1", "errors") < 11 * MEGABYTE
    assert (refused["state"], refused["verify"]) == ("failed", "failed")
    assert refused["verify_output"].endswith("done here\n[exit 1]")
    assert disk(home, f"{verified}-1-verify") < 11 * MEGABYTE
    await _check_pages(lead, printed[0][0])


async def _check_pages(lead: Lead, agent: str) -> None:
    """Pages name dropped bytes, continue after them, and contain no NUL from a hole."""
    head = await lead.call("read_log", id=agent, raw=True, offset=MEGABYTE - 500)
    assert head.endswith(f"\n[more, in mid-line: offset={MEGABYTE}]")
    after = await lead.call("read_log", id=agent, raw=True, offset=MEGABYTE, limit=5000)
    note, _, rest = after.partition("\n")
    assert note.startswith("[cut: ")
    assert note.endswith(" bytes were dropped here]")
    assert int(note.split()[1]) > 180_000_000
    assert "\0" not in after
    assert rest.count("0" * 900) >= 3
    assert int(after.rpartition("offset=")[2].rstrip("]")) > MEGABYTE + int(note.split()[1])


TALKS = ("no JSON", "no line end", "a long line", "a result of 6 MB", "a result of 20 MB", "after its end")


async def test_conversing_agents_that_flood_keep_their_last_message_and_events(
    lead: Lead, other: Lead, watch: Watch, record_property: Callable[[str, object], None]
) -> None:
    """Fault 9: ends of turns are found in much output, and inputs are closed."""
    results = await flood(watch, other, lead, *({"task": kind, "agent": "talker"} for kind in TALKS))
    record_property("figures", f"six floods that become events: the daemon grew by {watch.growth:.0f} MB")
    assert [result["state"] for _, result in results] == ["succeeded"] * len(TALKS)
    ends = {kind: result["output"] for kind, (_, result) in zip(TALKS, results, strict=True)}
    rest = {kind: ends.pop(kind) for kind in ("a result of 6 MB", "a result of 20 MB")}
    assert set(ends.values()) == {"done"}
    assert all(output.startswith("begin\U0001f642 xxx") for output in rest.values())
    assert f"[cut here; read_log('{results[3][0]}', raw=true) has the whole]" in rest["a result of 6 MB"]
    assert "[cut here: the rest is gone" in rest["a result of 20 MB"]
    logs = [await lead.call("read_log", id=agent) for agent, _ in results]
    assert all("started: m in conversation s" in log for log in logs)
    assert all("unreadable" in log for log in logs)
