"""Where forkjoin's home is, whatever the environment says."""

from pathlib import Path

import pytest
from forkjoin.core.paths import find_home


@pytest.mark.parametrize("name", ["XDG_STATE_HOME", "XDG_CONFIG_HOME"])
def test_a_relative_xdg_folder_is_ignored(tmp_path: Path, name: str) -> None:
    """So says the XDG specification; the daemon, which stands elsewhere, would take it for another."""
    plain, odd = find_home({"HOME": str(tmp_path)}), find_home({"HOME": str(tmp_path), name: "relative"})
    assert (odd.state, odd.config_file) == (plain.state, plain.config_file)


def test_a_tilde_with_an_unknown_user_is_an_ordinary_folder_name(tmp_path: Path) -> None:
    assert find_home({"FORKJOIN_HOME": "~no_such_user/x"}).state == Path.cwd() / "~no_such_user" / "x"
