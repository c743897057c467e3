"""The environment of agents' programs and of repositories' commands, composed from the lead's environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from string import Template

from forkjoin.core.settings import RESERVED_VARIABLES


def compose(
    environment: Mapping[str, str],
    settings: Mapping[str, str],
    ours: Mapping[str, str],
    *,
    wanted: Mapping[str, str] | None = None,
    ignore: Path | None = None,
) -> dict[str, str]:
    """Return the lead's environment with these additions.

    Reserved variables of the lead are left out. Later additions override earlier additions.

    1. `wanted`: variables of the repository configuration. `$NAME` in a value is replaced by the variable of the lead
       or of `ours`, and `$$` by a dollar sign.
    2. `settings`: variables of the user's config.toml.
    3. Variables that keep git from prompting, opening an editor, signing, and running maintenance. They are set without
       a change to any git configuration.
    4. `ours`: variables of forkjoin itself.

    Args:
        ignore: The path for git's core.excludesFile.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(RESERVED_VARIABLES)}
    known = {**kept, **ours}
    expanded = {name: Template(value).safe_substitute(known) for name, value in (wanted or {}).items()}
    return kept | expanded | dict(settings) | _git_variables(ignore) | dict(ours)


def encode(environment: Mapping[str, str]) -> bytes:
    """Return an environment in the form that the shim reads.

    Raises:
        ValueError: A variable can't be passed to a program.
    """
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(
                f"The variable {name!r} can't be passed to a program. A name must not be empty or contain '='. "
                "Neither the name nor the value may contain a NUL character."
            )
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items()) + b"\0"


def _git_variables(ignore: Path | None) -> dict[str, str]:
    config = {"commit.gpgSign": "false", "tag.gpgSign": "false", "maintenance.auto": "false", "gc.auto": "0"}
    if ignore:
        config["core.excludesFile"] = str(ignore)
    numbered = {
        f"GIT_CONFIG_{part}_{number}": text
        for number, pair in enumerate(config.items())
        for part, text in zip(("KEY", "VALUE"), pair, strict=True)
    }
    non_interactive = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",  # empty: overrides core.askPass and SSH_ASKPASS
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_EDITOR": "true",
        "GIT_SEQUENCE_EDITOR": "true",
        "GIT_PAGER": "cat",
    }
    return non_interactive | numbered | {"GIT_CONFIG_COUNT": str(len(config))}
