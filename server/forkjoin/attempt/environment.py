"""The environment in which agents' programs, and verify, run: the lead's own, less what is not theirs, plus ours."""

from collections.abc import Mapping

_NOT_THEIRS = ("CLAUDECODE", "CLAUDE_PROJECT_DIR", "CLAUDE_CODE_", "GIT_", "FORKJOIN_")


def compose(environment: Mapping[str, str], settings: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """What the lead had, cleaned, then what the settings add, then `ours`.

    git in it asks for nothing, opens no editor, signs nothing and starts no maintenance, by variables alone: nobody's
    configuration is touched.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(_NOT_THEIRS)}
    return kept | dict(settings) | _calm_git() | dict(ours)


def _calm_git() -> dict[str, str]:
    config = {"commit.gpgSign": "false", "tag.gpgSign": "false", "maintenance.auto": "false", "gc.auto": "0"}
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
