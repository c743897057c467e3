"""spawn_agent and spawn_agents, and the environment of the agents."""

import hashlib
from pathlib import Path

from forkjoin.core.paths import Home
from support.harness import GIVE_UP_S, Lead, forkjoin, git, limit, open_lead


async def test_a_spawn_answers_with_id_name_state_branch_and_place(near_lead: Lead) -> None:
    answer = await near_lead.call("spawn_agent", task="true", name="first")
    place = answer.pop("queue_position", None)
    state = answer.pop("state")
    assert answer == {"id": "a1", "name": "first", "branch": "forkjoin/a1-first"}
    assert (state, place) in (("queued", 1), ("queued", None), ("preparing", None))


async def test_fields_next_to_agents_are_defaults_for_entries_without_them(near_lead: Lead) -> None:
    answer = await near_lead.call(
        "spawn_agents", agents=[{}, {"task": "echo own"}], task="echo common", verify="test 1 = 1", agent="sh"
    )
    ids = [agent["id"] for agent in answer["agents"]]
    ended = await near_lead.call("wait_agents", ids=ids, timeout_s=GIVE_UP_S)
    assert [agent["summary"] for agent in ended["finished"]] == ["common", "own"]
    assert [agent["verify"] for agent in ended["finished"]] == ["passed", "passed"]


async def test_an_agent_without_a_name_gets_one_from_its_task_and_a_second_one_a_number(near_lead: Lead) -> None:
    answer = await near_lead.call("spawn_agents", agents=[{"task": "true"}, {"task": "true"}])
    assert [agent["name"] for agent in answer["agents"]] == ["true", "true-2"]


async def test_an_agent_of_a_dirty_checkout_starts_from_its_last_commit_with_a_note(
    near_lead: Lead, repository: Path
) -> None:
    (repository / "shared.txt").write_text("changed\n")
    answer = await near_lead.call("spawn_agent", task="cat shared.txt | tail -1")
    assert "uncommitted changes" in answer["note"]
    ended = await near_lead.call("wait_agents", ids=[answer["id"]], timeout_s=GIVE_UP_S)
    assert ended["finished"][0]["summary"] == "three"


async def test_an_agent_starts_from_the_base_that_was_named(near_lead: Lead, repository: Path) -> None:
    git(repository, "tag", "old")
    (repository / "shared.txt").write_text("newer\n")
    git(repository, "commit", "-aqm", "newer")
    (first,) = await near_lead.run("head -1 shared.txt", base="old")
    assert (await near_lead.call("get_result", id=first))["summary"] == "one"


async def test_on_a_branch_without_a_commit_agents_start_from_a_base_that_was_named(
    near_lead: Lead, repository: Path
) -> None:
    git(repository, "switch", "-q", "--orphan", "empty")
    (first,) = await near_lead.run("head -1 shared.txt; echo x > x.txt", base="main")
    assert (await near_lead.call("get_result", id=first))["summary"] == "one"
    assert "pass a commit as `base`" in await near_lead.refusal("spawn_agent", task="true")
    merged = await near_lead.call("merge_worktree", ids=[first], into="main")
    assert [agent["id"] for agent in merged["merged"]] == [first]
    assert git(repository, "show", "main:x.txt") == "x"
    assert git(repository, "status", "--porcelain") == ""


async def test_a_task_of_2_megabytes_arrives_byte_for_byte_on_stdin_and_in_the_file(any_lead: Lead) -> None:
    script = 'sha256sum < "$FORKJOIN_TASK_FILE"; wc -c < "$FORKJOIN_TASK_FILE"; exit 0\n'
    task = script + "# \t'\"$`\\ -x\r é 🙂 " * 90_000
    (first,) = await any_lead.run(task)
    digest, size = (await any_lead.call("get_result", id=first))["output"].split("\n")[:2]
    assert int(size) == len(task.encode())
    assert digest.split()[0] == hashlib.sha256(task.encode()).hexdigest()


async def test_an_agent_has_its_own_variables_and_none_that_mark_its_lead(repository: Path, home: Home) -> None:
    marks = {"CLAUDECODE": "1", "CLAUDE_CODE_MESSAGING_TOKEN": "secret", "GIT_DIR": "/nowhere", "MINE": "kept\n2"}
    async with open_lead(repository, **marks) as lead:
        (first,) = await lead.run("env -0 | tr '\\n\\0' '_\\n' | sort")
        environment = (await lead.call("get_result", id=first, detail="full"))["output"].splitlines()
    names = {line.partition("=")[0] for line in environment}
    assert "MINE=kept_2" in environment
    assert f"FORKJOIN_AGENT={first}" in environment
    assert not {"CLAUDECODE", "CLAUDE_CODE_MESSAGING_TOKEN", "CLAUDE_CODE_SESSION_ID", "GIT_DIR"} & names
    assert f"FORKJOIN_HOME={home.state}" in environment  # for a relay that it starts
    assert not {"FORKJOIN_KEEPER", "CLAUDE_PROJECT_DIR"} & names


async def test_an_agent_commits_where_git_knows_no_author(repository: Path, home: Home, user: Path) -> None:
    (user / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    async with open_lead(repository) as lead:
        (first,) = await lead.run("echo x > x.txt; git add x.txt; git commit -qm mine; echo y > y.txt")
        result = await lead.call("get_result", id=first)
        landed = await lead.call("merge_worktree", ids=[first])
    assert result["state"] == "succeeded", result
    assert len(result["commits"]) == 2
    assert git(repository, "log", "-1", "--format=%an <%ae>", landed["commit"]) == "forkjoin <forkjoin@localhost>"


async def test_ignored_files_that_worktreeinclude_names_are_copied(near_lead: Lead, repository: Path) -> None:
    (repository / ".gitignore").write_text(".env\nsecret.txt\n")
    (repository / ".worktreeinclude").write_text(".env\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "ignore")
    (repository / ".env").write_text("KEY=1\n")
    (repository / "secret.txt").write_text("no\n")
    (first,) = await near_lead.run("cat .env; ls secret.txt 2>/dev/null; true")
    result = await near_lead.call("get_result", id=first)
    assert result["output"] == "KEY=1\n"
    assert not [warning for warning in result["warnings"] if ".env" in warning]


async def test_higher_priority_starts_first_then_the_older(repository: Path, home: Home) -> None:
    limit(home, max_running=1)
    log = home.state / "order"
    task = f"echo $FORKJOIN_NAME >> {log}"
    agents = [
        {"name": "blocker", "task": f"{task}; until test -e {home.state}/go; do sleep 0.02; done"},
        {"name": "low", "task": task, "priority": -1},
        {"name": "old", "task": task},
        {"name": "new", "task": task},
        {"name": "high", "task": task, "priority": 5},
    ]
    async with open_lead(repository) as lead:
        await lead.call("spawn_agents", agents=agents[:1])
        answer = await lead.call("spawn_agents", agents=agents[1:])
        assert [agent["queue_position"] for agent in answer["agents"]][1:] == [2, 3, 1]
        (home.state / "go").touch()
        await lead.call("wait_agents", timeout_s=GIVE_UP_S)
    assert log.read_text().split() == ["blocker", "high", "old", "new", "low"]


def test_a_person_spawns_one_task_or_one_a_line(repository: Path, home: Home) -> None:
    forkjoin(repository, "spawn", "echo one", "--name", "single")
    many = forkjoin(repository, "spawn", stdin="echo two\n\necho three\n").stdout
    assert [line.split()[0] for line in many.splitlines()] == ["a2", "a3"]
    waited = forkjoin(repository, "wait").stdout
    assert {line.split()[-1] for line in waited.splitlines()} == {"one", "two", "three"}
