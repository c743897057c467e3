"""The real claude on a terminal, as a person has it: idle, it is woken when what it waits for has ended."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import vendors
from e2e.test_claude import REGISTERED, bash, of_forkjoin
from fakes.messages_api import MessagesApi
from fakes.script import Asked, Block, Script, Text, ToolUse
from forkjoin.paths import Home
from harness import git, until
from terminal import open_terminal

pytestmark = pytest.mark.vendor


_CONNECTING = "No such tool available: mcp__forkjoin__"
#: Its own default asks the API what is allowed.
LEAD = (
    *("claude", "--permission-mode", "default", "--allowedTools", "mcp__forkjoin,Bash"),
    *("--mcp-config", json.dumps(REGISTERED), "--strict-mcp-config"),
)


@pytest.fixture
def person(api: MessagesApi, home: Home, user: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who has claude set up, forkjoin in their PATH, and shell scripts for agents."""
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
    """Give these in turn, and one again that came before the server was connected: only `-p` waits for that."""

    def script(asked: Asked) -> Sequence[Block]:
        return answers[asked.answers - sum(_CONNECTING in result.text for result in asked.results)]

    return script


@vendors.for_each_claude
@pytest.mark.usefixtures("person")
async def test_an_idle_lead_is_woken_by_the_end_of_a_waiting_command_and_merges(
    api: MessagesApi, repository: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f"until test -e {go}; do sleep 0.05; done; echo one > one.txt"
    api.script = _once_connected(
        [of_forkjoin("spawn_agents", agents=[{"name": "one", "task": script}])],
        [ToolUse("Bash", {"command": "forkjoin wait one", "description": "wait", "run_in_background": True})],
        [Text("I wait for it.")],
        [of_forkjoin("merge_worktree", ids=["one"])],
        [bash("git log --oneline")],
        [Text("It is merged.")],
    )
    with open_terminal(repository, *LEAD) as terminal:
        await terminal.type("Fork it out.")
        await until(lambda: api.asked and any("in background" in result.text for result in api.asked[-1].results))
        told = len(api.asked)  # after the answer to that, it is idle
        go.touch()
        await until(lambda: len(api.asked) == told + 3)
    errors = [result.text for result in api.asked[-1].results if result.is_error]
    assert [text for text in errors if _CONNECTING not in text] == []
    assert (repository / "one.txt").read_text() == "one\n"
    assert "forkjoin/a1-one" in git(repository, "branch", "--merged", "main")
