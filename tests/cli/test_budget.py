"""forkjoin budget."""

import json
from pathlib import Path

import pytest
from forkjoin.core.paths import Home
from support.harness import forkjoin

pytestmark = pytest.mark.usefixtures("home")  # the fixture ends the daemon that a command starts


def test_a_person_sets_a_repositorys_budget_and_sees_it(repository: Path) -> None:
    assert forkjoin(repository, "budget").stdout == "the repository: 0 USD spent\n"
    assert forkjoin(repository, "budget", "2.50").stdout == "the repository: 0 of 2.5 USD spent\n"
    assert json.loads(forkjoin(repository, "budget", "--json").stdout) == {
        "budgets": [{"limit_usd": 2.5, "spent_usd": 0.0, "reserved_usd": 0.0}]
    }
    assert "0 USD of 2.50 USD spent" in forkjoin(repository, "status").stdout
    assert forkjoin(repository, "budget", "unlimited").stdout == "the repository: 0 USD spent\n"


def test_a_person_overrides_the_settings_and_goes_back_to_them(repository: Path, home: Home) -> None:
    home.config_file.write_text(home.config_file.read_text() + "\n[budget]\nrepository_usd = 20\n")
    assert forkjoin(repository, "budget").stdout == "the repository: 0 of 20 USD spent\n"
    assert forkjoin(repository, "budget", "unlimited").stdout == "the repository: 0 USD spent\n"
    assert forkjoin(repository, "budget", "default").stdout == "the repository: 0 of 20 USD spent\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("much",), "'much' is not an amount. Give USD, e.g. 2.50"),
        (("0",), "greater than 0"),
        (("5", "--lead", "nobody"), "No lead 'nobody' has spent anything in this repository. These leads have: none."),
        (("--agent", "a1"), "give an amount in USD"),
        (("5", "--agent", "a1"), "No agent 'a1'"),
    ],
)
def test_a_wrong_budget_is_refused_with_the_right_form(
    repository: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = forkjoin(repository, "budget", *arguments, check=False)
    assert done.returncode == 1
    assert words in done.stderr


def test_a_lead_can_not_raise_its_own_budget(repository: Path) -> None:
    done = forkjoin(repository, "budget", "100", check=False, env={"CLAUDECODE": "1"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "A person can, in a terminal of their own" in done.stderr
    assert forkjoin(repository, "budget", env={"CLAUDECODE": "1"}).returncode == 0
