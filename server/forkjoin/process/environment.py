"""The environment of agents' programs and of repositories' commands, composed from the lead's environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from string import Template

from forkjoin.core.settings import RESERVED_VARIABLES


def compose(
    environment: Mapping[str, str],
    settings: Mapping[str, str],
    own: Mapping[str, str],
    *,
    wanted: Mapping[str, str] | None = None,
    ignore: Path | None = None,
) -> dict[str, str]:
    """Return the lead's environment with the following additions.

    The lead's variables with reserved names, such as `GIT_*` and `FORKJOIN_*`, are left out. Of two additions with the
    same name, the later in this list counts.

    1. `wanted`: variables of the repository configuration. `$NAME` in a value is replaced by the variable of the lead
       or of `own`, and `$$` by a dollar sign.
    2. `settings`: variables of the user's config.toml.
    3. Variables that keep git from prompting, opening an editor, signing, and running maintenance. They are set without
       a change to any git configuration.
    4. `own`: variables of forkjoin itself.

    Args:
        environment: The lead's environment.
        ignore: The file that git uses as core.excludesFile; `None` for the user's own.
    """
    lead = {name: value for name, value in environment.items() if not name.startswith(RESERVED_VARIABLES)}
    known = {**lead, **own}
    expanded = {name: Template(value).safe_substitute(known) for name, value in (wanted or {}).items()}
    return lead | expanded | dict(settings) | _git_variables(ignore) | dict(own)


def encode(environment: Mapping[str, str]) -> bytes:
    """Return an environment in the form in which the shim reads it from its stdin.

    Each `NAME=value` entry ends with a NUL. One more NUL marks the end.

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
        "GIT_ASKPASS": "",  # an empty value makes git ignore core.askPass and SSH_ASKPASS
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_EDITOR": "true",
        "GIT_SEQUENCE_EDITOR": "true",
        "GIT_PAGER": "cat",
    }
    return non_interactive | numbered | {"GIT_CONFIG_COUNT": str(len(config))}
