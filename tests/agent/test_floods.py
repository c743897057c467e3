"""Floods (fault 9): whatever an agent prints, replies and memory stay bounded, and others are answered meanwhile."""

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
from forkjoin.paths import Home
from harness import GIVE_UP_S, Lead, open_lead

LIMIT = 64 * 1024
MEGABYTE = 1024 * 1024
CONFIG = """
[agents.talker]
kind = "claude"
command = ["{python}", "-S", "-E", "{script}"]
"""

#: What a claude prints; its task names what floods.
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
    case "no JSON": flood("x" * 1023 + "\n", 200)
    case "no line end": flood("x", 200); print()
    case "a long result": result("begin\ud83d\ude42 " + "x" * (20 * 1024 * 1024))
    case "a long line": flood("{", 20); print()
    case "after its end": result(); flood("x" * 1023 + "\n", 100)
if task not in ("a long result", "after its end"): result()
sys.stdout.flush()
sys.stdin.read()
"""

#: Shell scripts, and what the end of their output is.
SCRIPTS = {
    "lines": "yes \"$(printf '%01000d' 7)\" | head -c 200000000; echo; echo done",
    "one line": "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo done",
    "no line end": "head -c 200000000 /dev/zero | tr '\\0' x",
    "no UTF-8": "yes \"$(printf '\\377\\376%01000d' 7)\" | head -c 50000000; echo; echo done",
}


class Watch:
    """Watches the daemon's memory, and that it answers, while something floods."""

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
        """In megabytes."""
        return (self.most - self.before) / MEGABYTE


@pytest.fixture
async def other(repository: Path, home: Home, tmp_path: Path) -> AsyncIterator[Lead]:
    """Another lead, of the same daemon."""
    script = tmp_path / "talker.py"
    script.write_text(TALKER)
    config = home.config_file.read_text().replace("[limits]", "[limits]\nlog_megabytes = 8")
    home.config_file.write_text(config + CONFIG.format(python=sys.executable, script=script))
    async with open_lead(repository, "other") as found:
        await found.run("echo warm")
        yield found


@pytest.fixture
def watch(other: Lead, home: Home) -> Watch:
    (daemon,) = (pid for pid, words in processes_of(home.state).items() if "daemon\0run" in words)
    return Watch(psutil.Process(daemon))


async def flood(watch: Watch, other: Lead, lead: Lead, **spec: Any) -> tuple[str, Any]:
    """Run an agent that floods; its id, and its result."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.look, other)
        agent = (await lead.call("spawn_agent", **spec))["id"]
        with anyio.fail_after(3 * GIVE_UP_S):
            waited = await lead.call("wait_agents", ids=[agent], timeout_s=3 * GIVE_UP_S)
        assert not waited["timed_out"]
        tasks.cancel_scope.cancel()
    answers = [waited, *[await lead.call("get_result", id=agent, detail=detail) for detail in ("concise", "full")]]
    answers += [await lead.call("read_log", id=agent, raw=True, limit=48_000, **at) for at in ({}, {"tail": 500})]
    answers += [await lead.call("list_agents"), await lead.call("read_log", id=agent)]
    assert max(len(json.dumps(answer)) for answer in answers) < LIMIT
    assert watch.growth < 64
    assert watch.answers > 0
    return agent, answers[2]


def disk(home: Home, agent: str, name: str = "output") -> int:
    """Bytes that its log takes."""
    return os.stat(home.attempts / f"{agent}-1" / name).st_blocks * 512


@pytest.mark.parametrize("kind", SCRIPTS)
async def test_a_command_that_floods_ends_with_the_end_of_what_it_printed(
    lead: Lead, other: Lead, watch: Watch, home: Home, kind: str, record_property: Callable[[str, object], None]
) -> None:
    """Fault 9, of a command: its result is the end, and says what is before it and how that is read."""
    agent, result = await flood(watch, other, lead, task=SCRIPTS[kind])
    record_property("figures", f"flood ({kind}): the daemon grew by {watch.growth:.0f} MB")
    assert result["state"] == "succeeded"
    note, _, output = result["output"].partition("\n")
    assert note.startswith("[cut: ")
    assert note.endswith(f"bytes before this; read_log('{agent}', raw=true) has them]")
    assert output.endswith("x" * 1000 if kind == "no line end" else "done\n")
    assert disk(home, agent) < 11 * MEGABYTE


async def test_the_pages_of_a_flood_say_what_was_dropped_and_go_on_after_it(
    lead: Lead, other: Lead, watch: Watch, home: Home
) -> None:
    """Fault 9: pages never hold what the hole reads as."""
    agent, _ = await flood(watch, other, lead, task=SCRIPTS["lines"])
    head = await lead.call("read_log", id=agent, raw=True, offset=MEGABYTE - 1001, limit=48_000)
    assert head.endswith(f"\n[more: offset={MEGABYTE}]")
    after = await lead.call("read_log", id=agent, raw=True, offset=MEGABYTE, limit=5000)
    note, _, rest = after.partition("\n")
    assert note.startswith("[cut: ")
    assert note.endswith(" bytes were dropped here]")
    assert int(note.split()[1]) > 180_000_000
    assert "\0" not in after
    assert rest.count("0" * 900) >= 3
    begin = int(after.rpartition("offset=")[2].rstrip("]"))
    assert begin > MEGABYTE + int(note.split()[1])


@pytest.mark.parametrize("kind", ["no JSON", "no line end", "a long line", "a long result", "after its end"])
async def test_a_talker_that_floods_has_its_last_message_and_its_events(
    lead: Lead, other: Lead, watch: Watch, kind: str, record_property: Callable[[str, object], None]
) -> None:
    """Fault 9, of a program whose lines become events: its turn's end is found, and its input closed."""
    agent, result = await flood(watch, other, lead, task=kind, agent="talker")
    record_property("figures", f"flood of events ({kind}): the daemon grew by {watch.growth:.0f} MB")
    assert result["state"] == "succeeded", result
    if kind == "a long result":
        assert result["output"].startswith("begin\U0001f642 xxx")
        assert f"[cut here; read_log('{agent}', raw=true) has the whole]" in result["output"]
    else:
        assert (result["output"], result["cost_usd"]) == ("done", 0.5)
    log = await lead.call("read_log", id=agent)
    assert "started: m in conversation s" in log
    assert ("unreadable" in log) == (kind != "after its end" or "unreadable: x" in log)


async def test_a_verify_that_floods_fails_the_agent_with_the_end_of_what_it_printed(
    lead: Lead, other: Lead, watch: Watch, home: Home
) -> None:
    """Fault 9, of a verify."""
    verify = f"{SCRIPTS['lines']} here; exit 1"
    agent, result = await flood(watch, other, lead, task="echo x > x.txt", verify=verify)
    assert (result["state"], result["verify"]) == ("failed", "failed")
    assert result["verify_output"].endswith("done here\n[exit 1]")
    assert os.stat(home.attempts / f"{agent}-1-verify" / "output").st_blocks * 512 < 11 * MEGABYTE


async def test_a_flood_on_stderr_is_bounded_and_its_end_is_the_error(
    lead: Lead, other: Lead, watch: Watch, home: Home
) -> None:
    """Fault 9 and 12: the end of stderr is told."""
    agent, result = await flood(watch, other, lead, task=f"({SCRIPTS['lines']}) >&2; echo broken >&2; exit 3")
    assert result["state"] == "failed"
    assert result["error"].endswith("done\nbroken")
    assert disk(home, agent, "errors") < 11 * MEGABYTE
