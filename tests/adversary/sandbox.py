"""The folders of a history: a user's home, a home of forkjoin, two repositories, and files that must not change."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

#: Variables that make git ignore replace refs and grafts.
PLAIN = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": "/dev/null"}
#: No additional variables for a call of git.
NOTHING: Mapping[str, str] = MappingProxyType({})
#: Options with which the test's own git commands ignore hooks and settings that agents configure.
_NEUTRAL = (
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
    "-c",
    "commit.gpgSign=false",
    "-c",
    "color.ui=false",
)
_IDENTITY = {f"GIT_{role}_{what}": "t@e" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
#: Seconds until a git command is considered blocked, usually at a pipe.
_GIT_S = 30.0

_CONFIG = """
default_agent = "sh"
[limits]
max_load = 1000
max_running = 5
stop_grace_s = 0.2
[agents.sh]
kind = "command"
command = ["sh"]
"""
_USER = """
[user]
name = Test
email = test@example.com
[init]
defaultBranch = main
[protocol "file"]
allow = always
"""
#: A program that logs its command line, unless an agent or the user runs it. As a filter it copies its input.
_CANARY = """#!/bin/sh
[ -n "$FORKJOIN_MARK" ] || [ -n "$OF_USER" ] || echo "$0 $*" >> '{log}'
case "$0" in *hooks/*|*/h/*) exit 0;; esac
exec cat
"""
#: The files of the first commit.
_COMMITTED = {"README.md": "a repository\n", "shared.txt": "one\ntwo\nthree\n", "sub.txt": "below\n", "a/b.txt": "b\n"}


@dataclass
class Sandbox:
    """The folders of a history. A state may choose other folders for the checkout and the lead."""

    folder: Path
    repository: Path = field(init=False)  #: the user's checkout
    lead_at: Path = field(init=False)  #: the lead's working directory
    common: Path = field(init=False)  #: the repository's common git folder
    git_dir: Path = field(init=False)  #: the checkout's git folder
    blocks: bool = False  #: whether a state may make merges into the repository fail
    verify: bool = False  #: whether the repository's trusted forkjoin.toml has a verify command
    trust: Callable[[], None] = lambda: None  #: records the user's trust, once forkjoin's home exists

    def __post_init__(self) -> None:
        self.user, self.outside, self.home = (self.folder / name for name in ("user", "outside", "home"))
        self.log, self.ran, self.canary = self.folder / "log", self.folder / "ran", self.user / "canary"
        self.other = self.folder / "other"
        self.folder.mkdir(exist_ok=True)
        for made in (self.user, self.outside):
            made.mkdir()
        self.home.mkdir(mode=0o700)
        (self.home / "config.toml").write_text(_CONFIG)
        (self.user / ".gitconfig").write_text(_USER)
        (self.outside / "precious").write_text("precious\n")
        self.canary.write_text(_CANARY.format(log=self.ran))
        self.canary.chmod(0o755)
        self.log.touch()
        self.ran.touch()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all processes of this history."""
        return {
            "PATH": f"{_programs()}:{os.environ['PATH']}",
            "HOME": str(self.user),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "FORKJOIN_HOME": str(self.home),
        }

    def make(self, where: Path, *options: str) -> None:
        """Create a repository with a commit on main and a branch release."""
        where.mkdir(parents=True)
        self.run(where, "init", "-q", *options)
        self.write(where, _COMMITTED)
        self.run(where, "add", ".")
        self.run(where, "commit", "-qm", "first")
        self.run(where, "branch", "release")

    def settle(self, checkout: Path) -> None:
        """Make this checkout the user's and the lead's."""
        self.repository = self.lead_at = checkout
        folders = self.run(checkout, "rev-parse", "--path-format=absolute", "--git-common-dir", "--git-dir").split("\n")
        half = len(folders) // 2  # a path may have a line end
        self.common, self.git_dir = Path("\n".join(folders[:half])), Path("\n".join(folders[half:]))

    @staticmethod
    def write(where: Path, files: dict[str, str]) -> None:
        for name, text in files.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_text(text)

    def run(
        self, where: Path, *arguments: str, check: bool = True, stdin: str = "", extra: Mapping[str, str] = NOTHING
    ) -> str:
        """Run git in a folder, and return its output."""
        return self._git("-C", str(where), *arguments, check=check, stdin=stdin, extra=extra)

    def ask(self, *arguments: str, check: bool = True, extra: Mapping[str, str] = NOTHING) -> str:
        """Run git on the user's repository and checkout, and return its output.

        Both folders are named explicitly, so that git does not read what agents have written to find them.
        """
        folders = ("--git-dir", str(self.git_dir), "--work-tree", str(self.repository))
        return self._git(*folders, *arguments, check=check, extra={**PLAIN, **extra})

    def _git(self, *arguments: str, check: bool, extra: Mapping[str, str], stdin: str = "") -> str:
        env = {**self.environment, "GIT_OPTIONAL_LOCKS": "0", "OF_USER": "1", **_IDENTITY, **extra}
        with subprocess.Popen(
            ["git", *_NEUTRAL, *arguments], env=env, cwd=self.user, process_group=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as running:  # fmt: skip
            try:
                out, errors = running.communicate(os.fsencode(stdin), _GIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGTERM)  # unlike after SIGKILL, git then removes its locks
                raise
        assert running.returncode == 0 or not check, f"git {arguments}: {errors.decode(errors='replace')}"
        return os.fsdecode(out).removesuffix("\n")

    @contextmanager
    def inhabited(self) -> Generator[None]:
        """Give this process the environment of the history's user for a while.

        At the end the former environment and working directory are restored.
        """
        before, here = dict(os.environ), Path.cwd()
        environment = self.environment
        os.environ.clear()
        os.environ.update(environment)
        try:
            yield
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)

    def remove(self) -> None:
        for top, folders, _ in os.walk(self.folder):
            for name in folders:
                if not (found := Path(top, name)).is_symlink():
                    found.chmod(0o700)
        shutil.rmtree(self.folder)


def _programs() -> Path:
    """Return the folder of this Python's programs, which contains `forkjoin`."""
    return Path(sys.executable).parent
