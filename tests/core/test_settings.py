"""The reading of the user's settings."""

from pathlib import Path

import pytest
from forkjoin.core.error import CallerError
from forkjoin.core.settings import Settings, read_settings
from forkjoin.core.tree_limits import TreeLimits

WRONG = [
    ("[limits]\nmax_runing = 3\n", "limits.max_runing: Extra inputs are not permitted"),
    ("[limits]\nmax_running = 0\n", "limits.max_running"),
    ("[agents.x]\nkind = 'nothing'\ncommand = ['x']\n", "agents.x.kind"),
    ("[agents.x]\nkind = 'command'\ncommand = []\n", "agents.x.command"),
    ("[agents.a1]\nkind = 'command'\ncommand = ['x']\n", "agents.a1.[key]: Value error, a name is"),
    ("[limits]\ntimeout_minutes = inf\n", "limits.timeout_minutes"),
    ("[limits]\nsilence_minutes = 1e300\n", "limits.silence_minutes"),
    ("[limits]\nverify_minutes = inf\n", "limits.verify_minutes"),
    ("[limits]\nlog_megabytes = 99999999999999999999\n", "limits.log_megabytes"),
    ("[limits]\nmemory_per_agent = 'much'\n", "limits.memory_per_agent"),
    ("[limits]\nmemory = 99999999999999999999\n", "limits.memory"),
    ("[limits]\ncpus = 0\n", "limits.cpus"),
    ("[limits]\nprocesses_per_agent = -1\n", "limits.processes_per_agent"),
    ("[retention]\ndays = 99999999999999999999\n", "retention.days"),
    ("limits = \n", "Invalid value"),
    ("\xff", "codec can't decode"),
]


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_an_invalid_setting_is_an_error_that_names_its_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(CallerError) as caught:
        read_settings(file)
    assert str(file) in str(caught.value)
    assert says in str(caught.value)


def test_without_a_file_the_defaults_apply(tmp_path: Path) -> None:
    settings = read_settings(tmp_path / "none.toml")
    assert settings == Settings()
    assert settings.program(None).command == ["claude"]
    assert settings.program(None).skip_permissions is False


def test_limits_accept_units_and_an_agents_memory_is_limited_by_default(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        "[limits]\nmemory_per_agent = '4GB'\ncpu_minutes_per_agent = 2\nprocesses_per_agent = 0\nmemory = '8 GB'\n"
    )
    limits = read_settings(file).limits
    assert limits.per_agent == TreeLimits(memory=4_000_000_000, cpu_s=120)
    assert limits.in_all == TreeLimits(memory=8_000_000_000)
    default = Settings().limits
    assert Settings().on(6_000).limits.per_agent.memory == 3_000
    assert read_settings(file).on(6_000) == read_settings(file)
    assert default.in_all == TreeLimits()


def test_the_built_in_program_can_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[agents.claude]\nkind = 'claude'\ncommand = ['/opt/claude']\nskip_permissions = true\n")
    assert read_settings(file).program("claude").command == ["/opt/claude"]
