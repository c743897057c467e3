"""The reading of a repository's forkjoin.toml."""

from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.settings import RepositorySettings, check_settings

FILE = Path("/repository/forkjoin.toml")

WHOLE = """
verify = "npm test"
setup = "npm ci"
setup_minutes = 20
teardown = "docker compose down"
teardown_minutes = 2
ports = 5
[share]
node_modules = "copy"
"packages/web/.venv/" = "link"
[environment]
PORT = "$FORKJOIN_PORT_BASE"
"""


def read(text: str) -> RepositorySettings:
    return check_settings(RepositorySettings, FILE, text.encode())


def test_all_settings_are_read_and_listed_one_a_line() -> None:
    recipe = read(WHOLE)
    assert recipe.share == {"node_modules": "copy", "packages/web/.venv": "link"}
    assert recipe.lines() == [
        "verify = npm test",
        "setup = npm ci",
        "setup_minutes = 20.0",
        "teardown = docker compose down",
        "teardown_minutes = 2.0",
        "ports = 5",
        "share: node_modules = copy",
        "share: packages/web/.venv = link",
        "environment: PORT = $FORKJOIN_PORT_BASE",
    ]
    assert read("").lines() == []


@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../x",
        "x/../../y",
        "/etc",
        "",
        ".",
        "x//y",
        ".git",
        ".git/hooks",
        "x/.GIT",
        "a b",
        "*",
        "!x",
        "x\\\\y",
        "#",
    ],
)
def test_a_shared_path_that_is_invalid_or_leads_out_is_refused(path: str) -> None:
    with pytest.raises(CallerError, match=r"forkjoin\.toml: share\..*must be a path inside the checkout"):
        read(f'[share]\n"{path}" = "link"\n')


@pytest.mark.parametrize(
    ("name", "says"),
    [
        *(
            (name, "can't be set here")
            for name in ("GIT_DIR", "FORKJOIN_HOME", "CLAUDECODE", "CLAUDE_CODE_X", "LD_PRELOAD")
        ),
        *((name, "a variable's name must consist") for name in ("", "A B", "1A", "A=B", "A-B", "ä")),
    ],
)
def test_a_reserved_or_invalid_variable_is_refused(name: str, says: str) -> None:
    with pytest.raises(CallerError, match=says):
        read(f'[environment]\n"{name}" = "x"\n')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[share]\nx = "move"\n', "share.x: Input should be 'link' or 'copy'"),
        ('[environment]\nA = "\\u0000"\n', "environment.A: Value error, must not contain a NUL"),
        ("[environment]\nA = 1\n", "environment.A: Input should be a valid string"),
        ("ports = 0\n", "ports: "),
        ("ports = 1001\n", "ports: "),
        ("setup = ' '\n", "setup: Value error, must not be empty"),
        ("setup_minutes = 0\n", "setup_minutes: "),
        ("teardown_minutes = inf\n", "teardown_minutes: "),
        ("set_up = 'x'\n", "set_up: Extra inputs"),
    ],
)
def test_an_invalid_setting_is_an_error_that_names_its_key(text: str, says: str) -> None:
    with pytest.raises(CallerError) as caught:
        read(text)
    assert f"{FILE}: {says}" in str(caught.value)
