"""The location of the home in unusual environments."""

from pathlib import Path

import pytest
from forkjoin.core.paths import find_home


@pytest.mark.parametrize("name", ["XDG_STATE_HOME", "XDG_CONFIG_HOME"])
def test_a_relative_xdg_folder_is_ignored(tmp_path: Path, name: str) -> None:
    """The XDG specification requires this.

    The daemon, with another working directory, would find another folder.
    """
    plain, odd = find_home({"HOME": str(tmp_path)}), find_home({"HOME": str(tmp_path), name: "relative"})
    assert (odd.state, odd.config_file) == (plain.state, plain.config_file)


def test_a_tilde_with_an_unknown_user_is_an_ordinary_folder_name(tmp_path: Path) -> None:
    assert find_home({"FORKJOIN_HOME": "~no_such_user/x"}).state == Path.cwd() / "~no_such_user" / "x"
