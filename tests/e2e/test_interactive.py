"""The real claude in a terminal: attached to an agent, and as an idle lead that the end of a wait wakes.

The newest version runs `wait_agents` as a task (SEP-2663). With any version, `forkjoin wait` in a background shell has
the same effect.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from e2e.test_claude import REGISTERED, bash, of_forkjoin
from forkjoin.core.paths import Home
from support import vendor_programs
from support.fakes.messages_api import MessagesApi
from support.fakes.script import Asked, Block, Script, Text, ToolUse, by_prompt, in_turn
from support.harness import git, open_lead, start_daemon, until
from support.terminal import open_terminal

pytestmark = pytest.mark.vendor


_CONNECTING = "No such tool available: mcp__forkjoin__"
#: A lead in a terminal. The mode is given because claude's default mode asks the API which actions are allowed.
LEAD = (
    *("claude", "--permission-mode", "default", "--allowedTools", "mcp__forkjoin,Bash"),
    *("--mcp-config", json.dumps(REGISTERED), "--strict-mcp-config"),
)


@pytest.fixture
def person(api: MessagesApi, home: Home, user: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person with a configured claude and forkjoin in the PATH.

    The default agent is `sh`.
    """
    (user / ".claude.json").write_text(
        json.dumps(
            {
                "hasCompletedOnboarding": True,
                "officialMarketplaceAutoInstallAttempted": True,
                "officialMarketplaceAutoInstalled": True,
                "customApiKeyResponses": {"approved": ["x"], "rejected": []},
                "projects": {str(repository): {"hasTrustDialogAccepted": True}},
            }
        )
    )
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    config = home.config_file.read_text().replace('"claude"', '"sh"', 1)
    home.config_file.write_text(f'{config}[agents.sh]\nkind = "command"\ncommand = ["sh"]\n')


def _once_connected(*answers: Sequence[Block]) -> Script:
    """Return a script that gives these answers in order, then repeats the last one.

    An answer is repeated if claude was not yet connected to forkjoin: in a terminal, claude does not wait for that.
    """

    def script(asked: Asked) -> Sequence[Block]:
        given = asked.answers - sum(_CONNECTING in result.text for result in asked.results)
        return answers[min(given, len(answers) - 1)]

    return script


@vendor_programs.for_each_claude
@pytest.mark.usefixtures("person")
async def test_attach_lets_a_person_continue_an_agents_conversation_and_closing_the_window_resumes_the_agent(
    api: MessagesApi, home: Home, user: Path, repository: Path
) -> None:
    def script(asked: Asked) -> Sequence[Block]:
        messages = json.dumps(asked.body["messages"])
        if "A person may have continued your work" in messages:
            return [Text(f"You said it {messages.count('Make it two.')} time.")]
        return [Text("I will.")] if "Make it two." in messages else [bash("echo up; sleep 100")]

    api.script = script
    async with open_lead(repository) as lead:
        (agent,) = await lead.spawn("Make one.", agent="claude")
        await lead.last_event(agent, "echo up")
        worktree = str(next(home.worktrees.glob("*/*")))
        settings = json.loads((user / ".claude.json").read_text())
        settings["projects"] = {worktree: {"hasTrustDialogAccepted": True}}
        (user / ".claude.json").write_text(json.dumps(settings))
        with open_terminal(repository, "forkjoin", "attach", agent) as terminal:
            await terminal.type("Make it two.")
            await until(lambda: "Make it two." in json.dumps(api.asked[-1].body["messages"]))
            assert "Make one." in json.dumps(api.asked[-1].body["messages"])
            assert (await lead.listed(agent))["state"] == "paused"
            await until(lambda: b"will." in terminal.printed)
        (result,) = await lead.results(agent)
    assert (result["state"], result["output"]) == ("succeeded", "You said it 1 time.")


COMMAND = ToolUse("Bash", {"command": "forkjoin wait one", "description": "wait", "run_in_background": True})
TASK = of_forkjoin("wait_agents", ids=["one"])
in_each_way = pytest.mark.parametrize(
    ("claude", "waits"),
    [
        ("claude", COMMAND),
        pytest.param("claude-newest", COMMAND, marks=pytest.mark.soak),
        ("claude-newest", TASK),
    ],
    indirect=["claude"],
    scope="session",
)


@in_each_way
@pytest.mark.usefixtures("person")
async def test_the_end_of_a_background_wait_wakes_an_idle_lead_which_merges(
    api: MessagesApi, repository: Path, tmp_path: Path, waits: ToolUse
) -> None:
    go = tmp_path / "go"
    script = f"until test -e {go}; do sleep 0.05; done; echo one > one.txt"
    api.script = _once_connected(
        [of_forkjoin("spawn_agents", agents=[{"name": "one", "task": script}])],
        [waits],
        [Text("I wait for it.")],
        [of_forkjoin("merge_worktree", ids=["one"])],
        [Text("It is merged, or will be.")],
    )
    start_daemon(repository)
    with open_terminal(repository, *LEAD) as terminal:
        await terminal.type("Fork it out.")
        await until(lambda: api.asked and any("background" in result.text for result in api.asked[-1].results))
        go.touch()  # meanwhile the lead answers and becomes idle
        await until((repository / "one.txt").exists)
        await until(lambda: git(repository, "status", "--porcelain") == "")
    errors = [result.text for result in api.asked[-1].results if result.is_error]
    assert [text for text in errors if _CONNECTING not in text] == []
    assert "forkjoin/a1-one" in git(repository, "branch", "--merged", "main")


@in_each_way
@pytest.mark.usefixtures("person")
async def test_an_agents_question_wakes_an_idle_lead_which_answers(
    api: MessagesApi, repository: Path, tmp_path: Path, waits: ToolUse
) -> None:
    go = tmp_path / "go"
    lead = _once_connected(
        [of_forkjoin("spawn_agents", agents=[{"name": "one", "task": "Do one.", "agent": "claude"}])],
        [waits],
        [Text("I wait for it.")],
        [of_forkjoin("answer_request", request_id="r1", answer="Tabs.")],
        [Text("It is answered.")],
    )
    agent = in_turn(
        [bash(f"until test -e {go}; do sleep 0.05; done")],
        [of_forkjoin("ask_lead", question="Tabs or spaces?")],
        [Text("Done.")],
    )
    api.script = by_prompt({"Fork it out.": lead, "Do one.": agent})

    def of_agent() -> list[Asked]:
        return [asked for asked in api.asked if "Do one." in asked.prompt]

    start_daemon(repository)
    with open_terminal(repository, *LEAD) as terminal:
        await terminal.type("Fork it out.")
        await until(lambda: any("background" in result.text for asked in api.asked for result in asked.results))
        go.touch()
        await until(lambda: of_agent() and len(of_agent()[-1].results) == 2)
    assert json.loads(of_agent()[-1].results[-1].text)["answer"] == "Tabs."
