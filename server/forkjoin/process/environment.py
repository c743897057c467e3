"""The environment in which agents' programs, and their repositories' commands, run: the lead's own, less what is not
theirs, plus ours."""

import os
from collections.abc import Mapping
from pathlib import Path
from string import Template

from forkjoin.core.settings import NOT_THEIRS


def compose(
    environment: Mapping[str, str],
    settings: Mapping[str, str],
    ours: Mapping[str, str],
    *,
    wanted: Mapping[str, str] | None = None,
    ignore: Path | None = None,
) -> dict[str, str]:
    """What the lead had, cleaned, then what the repository wants, then what the settings add, then `ours`.

    git in it asks for nothing, opens no editor, signs nothing and starts no maintenance, by variables alone: nobody's
    configuration is touched.

    Args:
        wanted: In its values `$NAME` stands for what the lead had, or ours; `$$` for a dollar.
        ignore: What git is told of as core.excludesFile.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(NOT_THEIRS)}
    known = {**kept, **ours}
    asked = {name: Template(value).safe_substitute(known) for name, value in (wanted or {}).items()}
    return kept | asked | dict(settings) | _calm_git(ignore) | dict(ours)


def encode(environment: Mapping[str, str]) -> bytes:
    """An environment as the shim reads it.

    Raises:
        ValueError: A variable can't be given to any program.
    """
    for name, value in environment.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"no program can be given the variable {name!r}")
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items()) + b"\0"


def _calm_git(ignore: Path | None) -> dict[str, str]:
    config = {"commit.gpgSign": "false", "tag.gpgSign": "false", "maintenance.auto": "false", "gc.auto": "0"}
    if ignore:
        config["core.excludesFile"] = str(ignore)
    numbered = {
        f"GIT_CONFIG_{part}_{number}": text
        for number, pair in enumerate(config.items())
        for part, text in zip(("KEY", "VALUE"), pair, strict=True)
    }
    silent = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",  # empty: none, not even core.askPass or SSH_ASKPASS
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_EDITOR": "true",
        "GIT_SEQUENCE_EDITOR": "true",
        "GIT_PAGER": "cat",
    }
    return silent | numbered | {"GIT_CONFIG_COUNT": str(len(config))}
