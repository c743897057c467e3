"""MCP tasks: waits and merges whose client polls or subscribes instead of blocking."""

import json
import shlex
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.harness import (
    GIVE_UP_S,
    INITIALIZE,
    INITIALIZED,
    RELAY,
    RawRelay,
    first_answer,
    forkjoin,
    git,
    kill_daemon,
    tool_call,
    until,
)
from support.modern_client import TASKS, Json, Modern

#: An agent that ends once there is a file of this name in the repository.
UNTIL_GO = 'until [ -e "{}/go" ]; do sleep 0.02; done; echo gone'


@pytest.fixture
def client(repository: Path, home: Home) -> Iterator[Modern]:
    with Modern(repository) as found:
        yield found


def until_go(repository: Path) -> str:
    return UNTIL_GO.format(repository)


def go(repository: Path) -> None:
    (repository / ".git" / "info" / "exclude").write_text("go\n")
    (repository / "go").touch()


async def is_running(client: Modern, agent: str) -> None:
    """Wait until the agent runs."""

    async def look() -> bool:
        (found,) = client.tool("list_agents", ids=[agent])["structuredContent"]["agents"]
        return bool(found["state"] == "running")

    await first_answer(look)


def wait_for(client: Modern, *ids: str) -> Json:
    """Call wait_agents, and return the task."""
    task = client.tool("wait_agents", ids=ids, timeout_s=GIVE_UP_S)
    assert task["resultType"] == "task", task
    return task


async def test_a_wait_is_a_task_that_says_how_far_it_is_and_has_the_answer_of_a_blocking_one(
    client: Modern, repository: Path
) -> None:
    quick, slow = client.spawn("echo quick", until_go(repository))
    await client.answered("wait_agents", ids=[quick])
    task = wait_for(client, quick, slow)
    assert task["statusMessage"].startswith(f"1 of 2 ended; {slow} ")
    assert (task["status"], task["ttlMs"], task["pollIntervalMs"]) == ("working", 604_800_000, 2_000)
    stands = client.request("tasks/get", taskId=task["taskId"])
    assert (stands["resultType"], stands["status"], stands["createdAt"]) == ("complete", "working", task["createdAt"])
    go(repository)
    result = await client.completed(task["taskId"])
    blocked = client.tool("wait_agents", ids=[quick, slow])
    assert result["structuredContent"] == blocked["structuredContent"]
    assert result["content"] == blocked["content"]
    again = client.request("tasks/get", taskId=task["taskId"])
    assert (again["status"], again["result"]) == ("completed", result)
    assert again["lastUpdatedAt"] > again["createdAt"]


async def test_a_task_without_ids_waits_for_the_agents_found_when_it_was_made(client: Modern, repository: Path) -> None:
    (first,) = client.spawn(until_go(repository))
    task = client.tool("wait_agents")
    (later,) = client.spawn("sleep 1000")
    go(repository)
    answer = (await client.completed(task["taskId"]))["structuredContent"]
    assert ([agent["id"] for agent in answer["finished"]], answer["pending"]) == ([first], [])
    assert answer["timed_out"] is False
    client.tool("stop_agents", ids=[later])


def test_a_call_that_can_be_answered_at_once_is_not_a_task(client: Modern) -> None:
    nobody = client.tool("wait_agents")
    assert (nobody["resultType"], nobody["structuredContent"]["finished"]) == ("complete", [])
    unknown = client.tool("merge_worktree", ids=["a9"])
    assert unknown["isError"] is True


async def test_an_agent_counts_as_reported_once_the_tasks_answer_was_written(client: Modern, repository: Path) -> None:
    (first,) = client.spawn(until_go(repository))
    task = client.tool("wait_agents")
    go(repository)
    result = await client.completed(task["taskId"])
    assert [agent["id"] for agent in result["structuredContent"]["finished"]] == [first]
    assert client.tool("wait_agents")["structuredContent"]["finished"] == []


def asking(home: Home, folder: Path) -> str:
    """Return the task of an agent that asks its lead."""
    lines = (INITIALIZE, INITIALIZED, tool_call(1, "ask_lead", question="Tabs?"))
    (folder / "asked").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"export FORKJOIN_HOME={home.state}; {shlex.join(RELAY)} < {folder}/asked"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_request_before_or_after_a_task_was_made_ends_the_task(
    client: Modern, repository: Path, home: Home, tmp_path: Path, when: str
) -> None:
    task = asking(home, tmp_path)
    waits = f"{until_go(repository)}; {task}" if when == "after" else task
    (first,) = client.spawn(waits)
    if when == "after":
        made = wait_for(client, first)["taskId"]
        go(repository)
        answer = (await client.completed(made))["structuredContent"]
    else:
        answer = await client.answered("wait_agents", ids=[first])
    assert [(request["id"], request["text"]) for request in answer["requests"]] == [(first, "Tabs?")]
    assert [agent["id"] for agent in answer["pending"]] == [first]
    client.tool("stop_agents", ids=[first])


async def test_a_task_ended_by_a_request_stays_ended_once_the_request_is_reported(
    client: Modern, repository: Path, home: Home, tmp_path: Path
) -> None:
    (first,) = client.spawn(f"{until_go(repository)}; {asking(home, tmp_path)}")
    task = wait_for(client, first)["taskId"]
    with closing(sqlite3.connect(home.records, isolation_level=None)) as records:
        records.execute("CREATE TABLE seen (answered)")
        look = "INSERT INTO seen SELECT answer IS NOT NULL FROM deferred"
        records.execute(f"CREATE TRIGGER look AFTER INSERT ON request_told BEGIN {look}; END")
        go(repository)
        await client.completed(task)
        await until(lambda: records.execute("SELECT * FROM seen").fetchall())
        assert records.execute("SELECT answered FROM seen").fetchall() == [(1,)]
    client.tool("stop_agents", ids=[first])


async def test_a_wait_that_was_long_enough_ends_as_timed_out(client: Modern) -> None:
    (slow,) = client.spawn("sleep 1000")
    task = client.tool("wait_agents", ids=[slow], timeout_s=0.5)
    answer = (await client.completed(task["taskId"]))["structuredContent"]
    assert (answer["timed_out"], [agent["id"] for agent in answer["pending"]]) == (True, [slow])
    client.tool("stop_agents", ids=[slow])


async def test_a_merge_is_a_task_and_goes_on_though_it_is_cancelled(client: Modern, repository: Path) -> None:
    (first,) = client.spawn("echo x > x; git add x; git commit -qm x")
    await client.answered("wait_agents", ids=[first])
    task = client.tool("merge_worktree", ids=[first], verify=until_go(repository))
    assert (task["resultType"], task["statusMessage"]) == ("task", "merging 1 agent(s) into main")
    assert client.request("tasks/cancel", taskId=task["taskId"])["resultType"] == "complete"
    assert client.request("tasks/get", taskId=task["taskId"])["status"] == "working"
    go(repository)
    answer = (await client.completed(task["taskId"]))["structuredContent"]
    assert [agent["id"] for agent in answer["merged"]] == [first]
    assert answer["commit"] == git(repository, "rev-parse", "main")
    assert git(repository, "rev-list", "--merges", "--count", "main") == "1"


@pytest.mark.parametrize(
    ("trusted", "by_now", "is_noted"),
    [(False, "", True), (True, "verify = 'exit 1'", False), (False, "not TOML", False)],
)
async def test_a_merge_by_a_task_says_that_forkjoin_toml_was_not_used(
    client: Modern, repository: Path, trusted: bool, by_now: str, is_noted: bool
) -> None:
    (first,) = client.spawn("echo x > x; git add x; git commit -qm x")
    await client.answered("wait_agents", ids=[first])
    wanted = repository / "forkjoin.toml"
    wanted.write_text("setup = 'true'\n")
    if trusted:
        forkjoin(repository, "trust", "--yes")
    task = client.tool("merge_worktree", ids=[first], verify=until_go(repository))["taskId"]
    wanted.write_text(by_now or wanted.read_text())
    go(repository)
    answer = (await client.completed(task))["structuredContent"]
    assert [agent["id"] for agent in answer["merged"]] == [first]
    assert ("forkjoin.toml was not used" in answer.get("note", "")) is is_noted


async def test_a_wait_that_is_cancelled_hurts_no_agent_and_stays_cancelled(client: Modern, repository: Path) -> None:
    (first,) = client.spawn(until_go(repository))
    task = wait_for(client, first)["taskId"]
    assert client.request("tasks/cancel", taskId=task)["resultType"] == "complete"
    assert client.request("tasks/get", taskId=task)["status"] == "cancelled"
    go(repository)
    (end,) = (await client.answered("wait_agents", ids=[first]))["finished"]
    assert end["state"] == "succeeded"
    assert client.request("tasks/get", taskId=task)["status"] == "cancelled"


async def test_a_task_with_an_answer_can_not_be_cancelled(client: Modern, repository: Path) -> None:
    (first,) = client.spawn(until_go(repository))
    task = wait_for(client, first)["taskId"]
    go(repository)
    await client.completed(task)
    client.request("tasks/cancel", taskId=task)
    assert client.request("tasks/get", taskId=task)["status"] == "completed"


async def test_a_subscribed_client_is_notified_of_the_end_which_counts_as_reported(
    client: Modern, repository: Path
) -> None:
    client.spawn(until_go(repository))
    task = client.tool("wait_agents")["taskId"]
    listening = client.ask("subscriptions/listen", notifications={"taskIds": [task, "none of ours", task]})
    acknowledged = client.notification("notifications/subscriptions/acknowledged")
    assert acknowledged["notifications"] == {"taskIds": [task]}
    go(repository)
    notification = client.notification("notifications/tasks")
    assert (notification["taskId"], notification["status"]) == (task, "completed")
    assert notification["_meta"] == {"io.modelcontextprotocol/subscriptionId": listening}
    assert notification["result"]["structuredContent"]["finished"][0]["summary"] == "gone"
    assert client.result(listening)["_meta"] == notification["_meta"]
    assert client.tool("wait_agents")["structuredContent"]["finished"] == []
    assert client.request("tasks/get", taskId=task)["result"] == notification["result"]


def test_a_subscribed_client_is_notified_of_a_cancellation_and_its_next_wait_reports_the_end(
    client: Modern, repository: Path
) -> None:
    (first,) = client.spawn(until_go(repository))
    task = wait_for(client, first)["taskId"]
    client.ask("subscriptions/listen", notifications={"taskIds": [task]})
    client.notification("notifications/subscriptions/acknowledged")
    client.request("tasks/cancel", taskId=task)
    go(repository)
    assert client.notification("notifications/tasks")["status"] == "cancelled"
    (end,) = client.tool("wait_agents")["structuredContent"]["finished"]
    assert (end["id"], end["summary"]) == (first, "gone")


@contextmanager
def locked(home: Home) -> Generator[None]:
    """Lock the records against writing."""
    with closing(sqlite3.connect(home.records, isolation_level=None)) as records:
        records.execute("BEGIN IMMEDIATE")
        yield


async def test_a_wait_that_can_not_be_recorded_blocks(client: Modern, repository: Path, home: Home) -> None:
    (first,) = client.spawn(until_go(repository))
    await is_running(client, first)
    with locked(home):
        answer = client.tool("wait_agents", ids=[first], timeout_s=0.1)
    assert (answer["resultType"], answer["structuredContent"]["timed_out"]) == ("complete", True)
    go(repository)


async def test_an_answer_that_can_not_be_recorded_is_sent_once_and_the_connection_stays(
    client: Modern, repository: Path, home: Home
) -> None:
    (first,) = client.spawn(until_go(repository))
    task = wait_for(client, first)["taskId"]
    go(repository)
    await client.answered("wait_agents", ids=[first])
    with locked(home):
        client.ask("subscriptions/listen", notifications={"taskIds": [task]})
        assert client.notification("notifications/tasks")["status"] == "completed"
        assert client.request("tasks/get", taskId=task)["status"] == "completed"
    assert "a connection failed" not in home.log.read_text()


async def test_tasks_go_on_over_daemons_that_are_killed(client: Modern, repository: Path, home: Home) -> None:
    (merging,) = client.spawn("echo x > x; git add x; git commit -qm x")
    await client.answered("wait_agents", ids=[merging])
    (first,) = client.spawn(until_go(repository))
    listening = wait_for(client, first)["taskId"]
    client.ask("subscriptions/listen", notifications={"taskIds": [listening]})
    client.notification("notifications/subscriptions/acknowledged")
    merge = client.tool("merge_worktree", ids=[merging], verify=until_go(repository))["taskId"]
    for _ in range(2):
        kill_daemon(repository, home)
        assert client.request("tasks/get", taskId=merge)["status"] == "working"
    call = client.ask("tasks/get", taskId=listening)
    kill_daemon(repository, home)
    assert client.result(call)["status"] == "working"
    go(repository)
    assert client.notification("notifications/tasks")["result"]["structuredContent"]["finished"][0]["id"] == first
    answer = (await client.completed(merge))["structuredContent"]
    assert [agent["id"] for agent in answer["merged"]] == [merging]
    assert git(repository, "rev-list", "--merges", "--count", "main") == "1"


def test_a_call_repeated_after_the_daemon_was_killed_is_one_task(client: Modern, repository: Path, home: Home) -> None:
    (first,) = client.spawn(until_go(repository))
    waited = client.ask("tools/call", name="wait_agents", arguments={"ids": [first]})
    kill_daemon(repository, home)
    assert client.request("tasks/get", taskId=client.result(waited)["taskId"])["status"] == "working"
    go(repository)


def test_a_client_of_another_project_cant_read_a_task(client: Modern, repository: Path, tmp_path: Path) -> None:
    (first,) = client.spawn(until_go(repository))
    task = wait_for(client, first)["taskId"]
    git(tmp_path, "init", "-q", "other")
    for where, id_ in ((tmp_path / "other", task), (tmp_path, task), (repository, "0" * 32)):
        with Modern(where) as other:
            for method in ("get", "cancel", "update"):
                refused = other.request(f"tasks/{method}", taskId=id_, inputResponses={})
                assert (refused["code"], refused["message"]) == (-32602, "Failed to retrieve task: Task not found")
    assert client.request("tasks/update", taskId=task, inputResponses={"x": {}})["resultType"] == "complete"
    assert client.request("tasks/get", taskId=task)["status"] == "working"
    go(repository)


async def test_tasks_are_reported_if_git_cant_read_the_repository(
    client: Modern, repository: Path, tmp_path: Path
) -> None:
    (first,) = client.spawn(f"touch {tmp_path}/up; {until_go(repository)}")
    await until((tmp_path / "up").exists)  # an agent that is still being prepared would fail
    task = wait_for(client, first)["taskId"]
    config = repository / ".git" / "config"
    good = config.read_text()
    config.write_text("[broken\n")
    assert client.request("tasks/get", taskId=task)["status"] == "working"
    config.write_text(good)
    go(repository)


async def test_a_task_whose_record_can_not_be_read_for_a_moment_is_not_lost(
    client: Modern, repository: Path, home: Home
) -> None:
    (first,) = client.spawn(until_go(repository))
    task = wait_for(client, first)["taskId"]
    with closing(sqlite3.connect(home.records)) as records:
        records.execute("ALTER TABLE deferred RENAME TO gone")
        listened = client.request("subscriptions/listen", notifications={"taskIds": [task]})
        for refused in (client.request("tasks/get", taskId=task), listened):
            assert refused.get("code") == -32603, refused
            assert "The tasks can't be read now" in refused["message"]
        records.execute("ALTER TABLE gone RENAME TO deferred")
    assert client.request("tasks/get", taskId="none")["code"] == -32602
    assert client.request("tasks/get", taskId=task)["status"] == "working"
    go(repository)


async def test_a_passing_failure_is_not_recorded_as_the_answer(client: Modern, repository: Path, home: Home) -> None:
    (first,) = client.spawn(until_go(repository))
    task = wait_for(client, first)["taskId"]
    go(repository)
    await client.answered("wait_agents", ids=[first])
    with closing(sqlite3.connect(home.records)) as records:
        records.execute("ALTER TABLE result RENAME TO gone")
        refused = client.request("tasks/get", taskId=task)
        assert (refused["code"], "wait_agents failed, which is not your fault" in refused["message"]) == (-32603, True)
        client.ask("subscriptions/listen", notifications={"taskIds": [task]})
        await until(lambda: "can't be read now" in home.log.read_text())
        records.execute("ALTER TABLE gone RENAME TO result")
    notification = client.notification("notifications/tasks")
    assert notification["result"]["structuredContent"]["finished"][0]["id"] == first


def test_a_client_that_does_not_declare_tasks_gets_none(repository: Path, home: Home) -> None:
    with Modern(repository, tasks=False) as client:
        (first,) = client.spawn("sleep 1000")
        answer = client.tool("wait_agents", ids=[first], timeout_s=0.1)
        assert (answer["resultType"], answer["structuredContent"]["timed_out"]) == ("complete", True)
        params: Json = {"taskId": "x", "inputResponses": {}, "notifications": {"taskIds": ["x"]}}
        for method in ("tasks/get", "tasks/cancel", "tasks/update", "subscriptions/listen"):
            refused = client.request(method, **params)
            assert refused["code"] == -32021
            assert refused["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
        client.tool("stop_agents", ids=[first])


def test_the_server_says_that_it_has_tasks_and_changes_no_lists(client: Modern) -> None:
    said = client.request("server/discover")["capabilities"]
    assert said["extensions"] == {TASKS: {}}
    assert "listChanged" not in said["tools"] or not said["tools"]["listChanged"]
    assert client.request("subscriptions/listen", notifications={"toolsListChanged": True})["code"] == -32601


def test_a_subscription_without_a_list_of_task_ids_is_refused(client: Modern) -> None:
    for ids in (5, [5], ["x"] * 1001):
        refused = client.request("subscriptions/listen", notifications={"taskIds": ids})
        assert (refused["code"], refused["message"]) == (-32602, "taskIds must be a list of at most 1000 strings")


def test_a_client_of_an_older_protocol_subscribes_to_no_tasks(repository: Path, home: Home) -> None:
    listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen"}
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED, {**listen, "params": {"notifications": {"taskIds": ["x"]}}})
        assert [relay.answer().get("error", {}).get("code") for _ in range(2)] == [None, -32601]
