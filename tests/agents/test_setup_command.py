"""The setup of an agent's worktree before its program starts."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import processes_of
from forkjoin.app import open_reconciler
from forkjoin.core import file_lock
from forkjoin.core.paths import Home
from forkjoin.store.port_blocks import first_port
from forkjoin.workspace.workspace import _slug
from support.harness import (
    Lead,
    forkjoin,
    git,
    kill_daemon,
    lead_of,
    let_pass,
    limit,
    open_lead,
    open_lead_in_memory,
    open_reconciler_in_memory,
    until,
)
from support.repository_configs import put_dependencies, want


@pytest.fixture
async def near(repository: Path, home: Home) -> AsyncIterator[Lead]:
    async with open_lead_in_memory(home, repository) as lead:
        yield lead


async def result_of(lead: Lead, task: str, **spec: Any) -> Any:
    (id_,) = await lead.run(task, **spec)
    return await lead.call("get_result", id=id_)


async def test_setup_is_run_in_the_worktree_before_the_program(near: Lead, repository: Path, home: Home) -> None:
    want(repository, home, "setup = 'cp README.md made.txt; pwd; echo set up'\n")
    result = await result_of(near, "cat made.txt")
    assert (result["state"], result["output"].strip()) == ("succeeded", "a repository")
    assert (home.attempts / "a1-1-setup" / "output").read_text().splitlines() == [
        str(next(home.worktrees.glob("*/a1-*"))),
        "set up",
    ]


async def test_a_setup_is_not_run_again_for_a_later_attempt(
    repository: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    want(repository, home, f"setup = 'echo ran >> {home.state}/ran'\n")
    async with open_reconciler_in_memory(home) as reconciler, lead_of(reconciler, repository) as lead:
        (id_,) = await lead.spawn(f"echo x >> {home.state}/tries; [ $(wc -l < {home.state}/tries) = 2 ] || exit 75")
        await lead.until(id_, state="paused")
        let_pass(reconciler, monkeypatch, 1000)
        (result,) = await lead.results(id_)
    assert result["state"] == "succeeded"
    assert (home.state / "ran").read_text() == "ran\n"


async def test_program_setup_and_verify_get_the_configured_ports_and_environment(
    near: Lead, repository: Path, home: Home
) -> None:
    tell = 'echo "$FORKJOIN_AGENT $URL $FORKJOIN_PORT_BASE $GREETING"'
    wanted = (
        f"setup = '{tell}'\nverify = '{tell}'\n[environment]\nURL = 'http://:$FORKJOIN_PORT_BASE/'\nGREETING = 'hi'\n"
    )
    want(repository, home, wanted)
    result = await result_of(near, tell)
    first = first_port(home.state)
    expected = f"a1 http://:{first}/ {first} hi"
    assert result["output"].strip() == expected
    assert result["verify_output"] == f"{expected}\n[exit 0]"
    assert (home.attempts / "a1-1-setup" / "output").read_text().strip() == expected


async def test_all_commands_of_an_agent_get_the_same_slug_and_each_home_has_its_own(
    near: Lead, repository: Path, home: Home
) -> None:
    tell = f"echo $FORKJOIN_SLUG >> {home.state}/told"
    want(repository, home, f"setup = '{tell}'\nverify = '{tell}'\nteardown = '{tell}'\n")
    await near.call("remove_worktrees", ids=await near.run(tell))
    (name,) = set(told := (home.state / "told").read_text().split())
    assert (len(told), bool(re.fullmatch(r"fj-[0-9a-f]{8}-a1", name))) == (4, True)
    another = Home(home.state / "another", home.state)
    another.make()
    assert _slug(home.draw_name(), "a1-2") == name != _slug(another.draw_name(), "a1-1")


async def test_each_agent_has_ten_ports_without_any_configuration(near: Lead, home: Home) -> None:
    results = await near.results(*await near.run(*["echo $FORKJOIN_PORT_BASE"] * 3))
    first = first_port(home.state)
    assert sorted(int(result["output"]) for result in results) == [first, first + 10, first + 20]


async def test_an_agent_whose_setup_fails_fails_with_the_end_of_its_output(
    near: Lead, repository: Path, home: Home
) -> None:
    want(repository, home, "setup = 'echo began; seq 2000; echo no such package >&2; exit 3'\n")
    result = await result_of(near, f"touch {home.state}/started")
    assert (result["state"], result["summary"].split("\n")[0]) == ("failed", "setup failed: exit 3")
    assert result["error"].endswith("2000\nno such package")
    log = await near.call("read_log", id="a1", raw=True)
    assert log.startswith("began\n1\n2\n")
    assert "no such package" in await near.call("read_log", id="a1", tail=1)
    assert not (home.state / "started").exists()
    await near.call("remove_worktrees", ids=["a1"])
    assert list(home.worktrees.glob("*/*")) == []


async def test_a_setup_that_hangs_is_ended_at_its_limit_with_its_process_tree(
    near: Lead, repository: Path, home: Home
) -> None:
    want(repository, home, "setup = 'setsid sleep 1000 & echo waits; sleep 1000'\nsetup_minutes = 0.005\n")
    result = await result_of(near, "true")
    assert result["error"].startswith("setup failed: ended ")
    assert result["error"].endswith("waits")
    assert processes_of(home.attempts) == {}


async def test_stopping_an_agent_ends_its_setup(near: Lead, repository: Path, home: Home) -> None:
    want(
        repository, home, f"setup = 'trap \"\" TERM; touch {home.state}/up; echo waits; while :; do sleep 0.1; done'\n"
    )
    (id_,) = await near.spawn(f"touch {home.state}/started")
    await until((home.state / "up").exists)
    assert await near.last_event(id_, "waits") == "waits"
    (stopped,) = (await near.call("stop_agents", ids=[id_]))["agents"]
    assert stopped["state"] == "stopped"
    assert processes_of(home.attempts) == {}
    assert not (home.state / "started").exists()


async def test_a_lost_setup_is_run_again(near: Lead, repository: Path, home: Home) -> None:
    ran = home.state / "ran"
    want(repository, home, f"setup = 'echo x >> {ran}; [ $(wc -l < {ran}) = 2 ] || {{ kill -9 $PPID; sleep 1000; }}'\n")
    assert (await result_of(near, "true"))["state"] == "succeeded"
    assert processes_of(home.attempts) == {}


@pytest.mark.parametrize("ends", ["before", "after"])
async def test_a_setup_continues_when_the_daemon_is_killed(repository: Path, home: Home, ends: str) -> None:
    wait = f"until test -e {home.state}/go; do sleep 0.02; done"
    want(repository, home, f"setup = 'echo x >> {home.state}/ran; {wait}; echo done > made.txt'\n")
    async with open_lead(repository) as lead:
        (id_,) = await lead.spawn("cat made.txt")
        await until((home.state / "ran").exists)
        kill_daemon(repository, home)
        if ends == "before":
            (home.state / "go").touch()
            await until(lambda: not file_lock.is_held(home.attempts / f"{id_}-1-setup" / "lock"))
        (result,) = await _after(lead, home, id_)
    assert (result["state"], result["output"].strip()) == ("succeeded", "done")
    assert (home.state / "ran").read_text() == "x\n"


async def _after(lead: Lead, home: Home, id_: str) -> list[Any]:
    """Let the setup end once the next daemon runs, and return the agents' results."""
    await lead.listed(id_)
    (home.state / "go").touch()
    return await lead.results(id_)


async def test_untrusted_configuration_is_not_used_and_spawned_agents_keep_their_configuration(
    repository: Path, home: Home
) -> None:
    limit(home, max_running=1)
    old, new = "setup = 'echo old > made.txt'\n", "setup = 'echo new > made.txt'\n"
    tell = "cat made.txt || echo none"
    async with open_lead_in_memory(home, repository) as lead:
        want(repository, home, old, trusted=False)
        assert "nobody has trusted" in (await lead.call("spawn_agent", task=tell))["note"]
        forkjoin(repository, "trust", "--yes")
        (second,) = await lead.spawn(f"until test -e {home.state}/go; do sleep 0.02; done; {tell}")
        (third,) = await lead.spawn(tell)
        want(repository, home, new, trusted=False)
        note = (await lead.call("spawn_agent", task=tell))["note"]
        assert note.startswith(f"{repository}/forkjoin.toml was not used: nobody has trusted")
        forkjoin(repository, "trust", "--yes")
        await lead.spawn(tell)
        (home.state / "go").touch()
        results = await lead.results("a1", second, third, "a4", "a5")
    assert [result["output"].strip() for result in results] == ["none", "old", "old", "none", "new"]


async def test_a_shared_folder_is_linked_and_the_link_is_not_committed(
    near: Lead, repository: Path, home: Home
) -> None:
    folder = put_dependencies(repository)
    want(repository, home, "setup = 'test -e node_modules/left-pad'\n[share]\nnode_modules = 'link'\n")
    result = await result_of(near, "echo x > x; git add -A; git commit -qm x; echo y > y; cat node_modules/left-pad/*")
    assert result["output"].strip() == "pad"
    assert result["warnings"] == ["1 uncommitted path was committed for the agent."]
    names = git(repository, "ls-tree", "-r", "--name-only", result["branch"]).split()
    assert names == [".gitignore", "README.md", "shared.txt", "x", "y"]
    assert "node_modules" not in await near.call("read_diff", id="a1")
    await near.call("merge_worktree", ids=["a1"])
    await near.call("remove_worktrees", ids=["a1"])
    assert (folder / "left-pad" / "index.js").read_text() == "pad\n"


async def test_a_shared_folder_is_copied_and_a_missing_folder_is_reported(
    near: Lead, repository: Path, home: Home
) -> None:
    folder = put_dependencies(repository)
    want(repository, home, "[share]\nnode_modules = 'copy'\nother = 'link'\n")
    result = await result_of(near, "echo mine > node_modules/left-pad/index.js; cat node_modules/left-pad/*")
    assert (result["output"].strip(), (folder / "left-pad" / "index.js").read_text()) == ("mine", "pad\n")
    async with open_reconciler(home) as reconciler:
        texts = [event.text for event in await reconciler.store.events.page(1, 0, 10)]
    assert f"other is not shared: it doesn't exist in {repository}" in texts
    assert any(text.startswith("share: exit 0 in ") for text in texts)


def put_cp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a `cp` that runs this script first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cp").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


async def test_an_agent_fails_without_setup_if_a_copy_fails(
    repository: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_dependencies(repository)
    want(repository, home, f"setup = 'touch {home.state}/set-up'\n[share]\nnode_modules = 'copy'\n")
    put_cp(tmp_path, monkeypatch, "echo 'cp: no room' >&2; exit 1")
    async with open_lead_in_memory(home, repository) as lead:
        assert (await result_of(lead, "true"))["error"] == "share failed: exit 1\ncp: no room"
    assert not (home.state / "set-up").exists()


async def test_stopping_an_agent_ends_a_copy_and_commits_none_of_it(
    repository: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_dependencies(repository)
    want(repository, home, "[share]\nnode_modules = 'copy'\n")
    put_cp(
        tmp_path, monkeypatch, f'for last; do :; done; mkdir "$last"; touch "$last/half" {home.state}/up; sleep 1000'
    )
    async with open_lead_in_memory(home, repository) as lead:
        (id_,) = await lead.spawn("true")
        await until((home.state / "up").exists)
        (stopped,) = (await lead.call("stop_agents", ids=[id_]))["agents"]
        result = await lead.call("get_result", id=id_)
    assert (stopped["state"], result["commits"]) == ("stopped", [])
    assert processes_of(home.attempts) == {}


async def test_a_restored_agent_keeps_its_configuration_and_ports(repository: Path, home: Home) -> None:
    want(repository, home, "teardown = 'true'\n")
    async with open_lead_in_memory(home, repository) as lead:
        await lead.run("true", "true")
    home.records.unlink()
    async with open_reconciler(home) as reconciler:
        agent = await reconciler.store.agents.get(2)
        assert (agent.history.restored, agent.worktree.port_base) == (True, first_port(home.state) + 10)
        assert (await reconciler.store.projects.recipe(agent)).teardown == "true"


async def test_files_that_setup_writes_are_not_the_agents_work(near: Lead, repository: Path, home: Home) -> None:
    want(repository, home, "setup = 'echo $FORKJOIN_AGENT > made.txt; echo by setup >> README.md'\n")
    await near.run("cat made.txt; true", "cat made.txt; echo > two", "echo mine >> made.txt")
    changed = [(await near.call("read_diff", id=id_, stat=True)) for id_ in ("a1", "a2", "a3")]
    results = [await near.call("get_result", id=id_) for id_ in ("a1", "a2", "a3")]
    assert [result["files_changed"] for result in results] == [0, 1, 1], changed
    assert (results[0]["merge"], results[0]["output"]) == ("nothing", "a1\n")
    assert not [warning for result in results[:1] for warning in result["warnings"] if "committed" in warning]
    answer = await near.call("merge_worktree", ids=["a1", "a2", "a3"], verify="true")
    assert [agent["id"] for agent in answer["merged"]] == ["a2", "a3"], answer
    removed = await near.call("remove_worktrees", ids=["a1", "a2", "a3"])
    assert not any("kept_as" in agent for agent in removed["removed"]), removed
    assert git(repository, "ls-tree", "--name-only", "-r", "main").split() == [
        *("README.md", "made.txt", "shared.txt", "two"),
    ]


async def test_files_that_setup_writes_cause_no_predicted_conflict(near: Lead, repository: Path, home: Home) -> None:
    want(repository, home, "setup = 'echo $FORKJOIN_AGENT > made.txt'\n")
    ids = await near.spawn("echo > one; sleep 1000", "echo > two; sleep 1000")
    for id_ in ids:
        await near.until(id_, state="running")
    assert (await near.call("check_conflicts", ids=ids))["conflicts"] == []
    await near.call("stop_agents", ids=ids)
