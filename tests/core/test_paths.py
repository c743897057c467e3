"""Where forkjoin's home is, whatever the environment says."""

from pathlib import Path

import pytest
from forkjoin.core.paths import find_home


@pytest.mark.parametrize("name", ["XDG_STATE_HOME", "XDG_CONFIG_HOME"])
def test_a_relative_folder_of_the_platforms_own_does_not_count(tmp_path: Path, name: str) -> None:
    """So says the XDG specification; the daemon, which stands elsewhere, would take it for another."""
    plain, odd = find_home({"HOME": str(tmp_path)}), find_home({"HOME": str(tmp_path), name: "relative"})
    assert (odd.state, odd.config_file) == (plain.state, plain.config_file)


def test_a_home_named_by_nobodys_name_is_a_folder_like_any_other(tmp_path: Path) -> None:
    assert find_home({"FORKJOIN_HOME": "~no_such_user/x"}).state == Path.cwd() / "~no_such_user" / "x"
