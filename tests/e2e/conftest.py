"""Fixtures of tests with the real claude: the program, and a scripted API that it connects to."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support import vendor_programs
from support.fakes.messages_api import MessagesApi, serve

# A lead's variables named CLAUDE_CODE_… do not reach its agents, so the configuration must set these.
CONFIG = """
default_agent = "claude"
[limits]
max_load = 1000
max_running = 4
stop_grace_s = 1
[agents.claude]
kind = "claude"
command = ["claude"]
environment = { CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC = "1", CLAUDE_CODE_MAX_RETRIES = "1" }
"""

#: Variables that restrict claude to loopback and let root use it. With the last two, claude's first turn waits for its
#: MCP servers, and for longer than the default of five seconds.
VARIABLES = {
    "ANTHROPIC_API_KEY": "x",
    "IS_SANDBOX": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_TELEMETRY": "1",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "NO_PROXY": "127.0.0.1",
    "MCP_CONNECTION_NONBLOCKING": "0",
    "MCP_CONNECT_TIMEOUT_MS": "60000",
}


@pytest.fixture(scope="session")
def claude(request: pytest.FixtureRequest) -> Path:
    """The real claude, in its older version unless `for_each_claude` is applied."""
    if reason := vendor_programs.skip_reason():
        pytest.skip(reason)
    try:
        return vendor_programs.program(getattr(request, "param", "claude"))
    except vendor_programs.NotInstalledError as error:
        why = str(error)
    pytest.fail(why, pytrace=False)


@pytest.fixture
def api(claude: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesApi]:
    """The API of every claude that the test or forkjoin starts.

    In this home, the default agent is claude.

    The API's server is also the proxy of these programs, so a connection beyond loopback fails the test.
    """
    home.config_file.write_text(CONFIG)
    monkeypatch.setenv("PATH", f"{claude.parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with serve() as found:
        for name in ("ANTHROPIC_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, found.url)
        yield found
    assert not [other for other in found.others if other.startswith("CONNECT")]
