"""Text from outside arrives unchanged or is refused. It reaches no shell, git option or path."""

import hashlib
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.branches import everything, put_git
from support.harness import (
    INITIALIZE,
    INITIALIZED,
    RawRelay,
    ToolRefusedError,
    git,
    open_lead,
    open_lead_in_memory,
    tool_call,
)

#: An agent that prints its task from stdin and from the file.
HASH = '[agents.hash]\nkind = "command"\ncommand = ["sh", "-c", "sha256sum; sha256sum < $FORKJOIN_TASK_FILE"]\n'

TASKS = {
    "shell": "$(touch X) `touch X` ; touch X | & > X < /dev/null \"'\\ $HOME *? ~ !! #\n",
    "option": "--help -rf / -- -",
    "line ends": "\r\n\tone\rtwo\n\r\n\v\f \u2028 end without one",
    "unicode": "\U0001f9d1\u200d\U0001f680 e\u0301 \u202egnp.exe \ufeff \U0010ffff",
    "200 KB": "0123456789abcdef" * 12_500,
    "2 MB": "é\n" * 700_000,
}

#: Tasks, as JSON, that can't be passed to a program.
UNFIT = [r'"a\u0000b"', r'"\ud800"', '""', r'" \n\t "']


async def test_every_task_arrives_byte_for_byte_on_stdin_and_as_a_file(repository: Path, home: Home) -> None:
    home.config_file.write_text(home.config_file.read_text() + HASH)
    async with open_lead(repository) as lead:
        ids = await lead.run(*TASKS.values(), agent="hash")
        for id_, task in zip(ids, TASKS.values(), strict=True):
            digest = hashlib.sha256(task.encode()).hexdigest()
            assert (await lead.call("get_result", id=id_))["output"] == f"{digest}  -\n" * 2
    assert not list(home.state.rglob("X"))
    assert not (repository / "X").exists()


def test_an_unusable_task_is_refused_once_and_starts_nothing(repository: Path, home: Home) -> None:
    before = everything(repository)
    with RawRelay(repository) as relay:
        relay.send(INITIALIZE, INITIALIZED)
        assert relay.answer()["id"] == 0
        for number, task in enumerate(UNFIT, 1):
            line = tool_call(number, "spawn_agent", task="TASK")
            relay.send(str(line).replace("'", '"').replace('"TASK"', task).encode())
        answers = [relay.answer() for _ in UNFIT]
        assert sorted(answer["id"] for answer in answers) == list(range(1, len(UNFIT) + 1))
        assert all("error" in answer or answer["result"]["isError"] for answer in answers)
        listed = relay.call(99, "list_agents")  # the next reply: no earlier request got a second one
        assert (listed["id"], listed["result"]["structuredContent"]["agents"]) == (99, [])
    assert everything(repository) == before
    assert list(home.attempts.iterdir()) == []


#: Harmful names, bases, branches, ids and paths. Each is passed in all parameters of such kinds.
HOSTILE = [
    *("../../EVIL", "/EVIL", "--upload-pack=touch EVIL", "-EVIL", "--output=EVIL", "EVIL..b", "EVIL.lock", "EVIL@{-1}"),
    *("EVIL\nline", "\u202eEVIL", "EVILe\u0301", "EVIL" * 1250, "--force=EVIL", "main:EVIL", "EVIL:(top)", "$(EVIL)"),
]


async def test_outside_text_is_never_a_git_option(
    repository: Path, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    put_git(tmp_path / "bin", monkeypatch, f'printf "%s\\036" "$@" "$(printf "\\035")" >> {log}', everything=True)
    async with open_lead_in_memory(home, repository) as lead:

        async def ask(tool: str, **arguments: object) -> None:
            try:
                await lead.call(tool, **arguments)
            except ToolRefusedError:
                return

        odd = "echo x > --output=EVIL; echo x > ':(top)EVIL'; echo x > '-n EVIL'; mkdir -- --EVIL; touch -- --EVIL/f"
        (first,) = await lead.run(
            f"{odd}; git update-ref refs/heads/-EVIL HEAD; git symbolic-ref HEAD refs/heads/-EVIL"
        )
        for text in HOSTILE:
            await ask("spawn_agent", task="true", name=text)
            await ask("spawn_agent", task="true", base=text)
            await ask("merge_worktree", ids=[first], into=text, dry_run=True)
            await ask("read_diff", id=first, path=text)
            await ask("get_result", id=text)
        await ask("merge_worktree", ids=[first], into="-EVIL", dry_run=True)
        result = await lead.call("get_result", id=first)
        assert result["files_changed"] == 4
        assert [agent["id"] for agent in (await lead.call("merge_worktree", ids=[first]))["merged"]] == [first]
        await lead.call("remove_worktrees", ids=[first], discard_unmerged=True)
        others = (await lead.call("list_agents"))["agents"]
        assert len(others) == 1, "one started from the branch -EVIL, which the first had made: it is there"
        await lead.call("wait_agents", ids=[others[0]["id"]])
    calls = [call.split("\036")[:-1] for call in log.read_text().split("\035\036")[:-1]]
    assert any("EVIL" in word for words in calls for word in words)
    for words in calls:
        options = words[: min(words.index(end) for end in ("--", "--end-of-options", *words[-1:]) if end in words)]
        assert [word for word in options if word.startswith("-") and "EVIL" in word] == []
    outside = [path for path in tmp_path.rglob("*EVIL*") if repository not in path.parents]
    assert outside == []
    assert git(repository, "status", "--porcelain") == ""


async def test_names_that_clash_on_some_file_systems_are_kept_apart(repository: Path, home: Home) -> None:
    async with open_lead_in_memory(home, repository) as lead:
        names = ["CON", "nul", "Fix", "fix", "n" * 64]
        answer = await lead.call("spawn_agents", agents=[{"task": "true", "name": name} for name in names])
        branches = [agent["branch"] for agent in answer["agents"]]
        assert branches == [f"forkjoin/a{n}-{name}" for n, name in enumerate(names, 1)]
        assert len({branch.lower() for branch in branches}) == len(names)
        waited = await lead.call("wait_agents")
        assert {agent["state"] for agent in waited["finished"]} == {"succeeded"}
