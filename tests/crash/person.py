"""A person's repository, in whose checkout no byte of the person's files may change."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from crash.work import IN_THE_WAY, SHARED

#: The files of the first commit.
_COMMITTED = {
    "README.md": "a repository\n",
    SHARED: "one line\n",
    "staged.txt": "as committed\n",
    "both.txt": "as committed\n",
    "unstaged.txt": "as committed\n",
    "deleted.txt": "as committed\n",
    "person.txt": "0\n",
    ".gitignore": "*.log\n",
}
_STAGED = {"staged.txt": "staged\n", "both.txt": "staged\n", "new.txt": "staged, and new\n"}
_UNSTAGED = {
    "both.txt": "not staged\n",
    "unstaged.txt": "not staged\n",
    IN_THE_WAY: "untracked\n",
    "x.log": "ignored\n",
}
#: The output of `git status --porcelain --ignored` in a world at rest.
_STATUS = {
    " D deleted.txt",
    " M unstaged.txt",
    "!! x.log",
    "?? notes/untracked.txt",
    "A  new.txt",
    "M  staged.txt",
    "MM both.txt",
}


class Person:
    """A repository with a checkout of main in which a person has staged, unstaged and untracked changes."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.commits: list[str] = []
        self.owes_commit = False  #: whether the last `git commit` failed, because another process had locked the index
        folder.mkdir()
        self.git("init", "-q")
        self._write(_COMMITTED)
        self.git("add", ".")
        self.git("commit", "-qm", "first")
        self.first = self.git("rev-parse", "HEAD")
        self.git("branch", "release")
        self.git("branch", "theirs")
        self.git("tag", "v1")
        self._write(_STAGED)
        self.git("add", ".")
        (folder / "deleted.txt").unlink()
        self._write(_UNSTAGED)
        self._staged = self._read_staged()

    @property
    def common_dir(self) -> Path:
        return self.folder / ".git"

    def git(self, *arguments: str, check: bool = True) -> str:
        done = self.run("git", "-C", str(self.folder), *arguments)
        assert done.returncode == 0 or not check, f"git {arguments}: {done.stderr}"
        return done.stdout.removesuffix("\n")

    def run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, errors="replace", check=False
        )

    def commit(self) -> bool:
        """Commit one file, and leave the staged changes staged.

        Return whether git succeeded.
        """
        number = len(self.commits) + 1
        self._write({"person.txt": f"{number}\n"})
        done = self.run("git", "commit", "-qm", f"person {number}", "--only", "--", "person.txt")
        self.owes_commit = done.returncode != 0
        if not self.owes_commit:
            self.commits.append(f"person {number}")
        return not self.owes_commit

    def _write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            file = self.folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)

    def _read_staged(self) -> str:
        return self.git("diff-index", "--cached", "--raw", "--no-abbrev", "HEAD")

    def losses(self) -> list[str]:
        """Return a sentence for each change to the person's files, index, refs or stash."""
        found = [
            f"{name} is {text!r}, not {wanted!r}"
            for name, wanted in {**_STAGED, **_UNSTAGED}.items()
            if (text := self._text(name)) != wanted
        ]
        status = set(self.git("status", "--porcelain", "--ignored", "--untracked-files=all").splitlines())
        if status != _STATUS:
            found.append(f"git status differs in {sorted(status ^ _STATUS)}")
        if (staged := self._read_staged()) != self._staged:
            found.append(f"the staged changes are {staged}, not {self._staged}")
        if any(self.git("rev-parse", ref) != self.first for ref in ("refs/heads/theirs", "refs/tags/v1")):
            found.append("the branch theirs or the tag v1 has moved")
        if self.git("stash", "list"):
            found.append("there is a stash")
        return found

    def _text(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return None


def environment(folder: Path, home: Path) -> dict[str, str]:
    """Return the environment of all processes of a world, with a user of its own."""
    user = folder / "owner"
    user.mkdir()
    (user / ".gitconfig").write_text("[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(user),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "FORKJOIN_HOME": str(home),
        **{name: os.environ[name] for name in ("PYTHONDONTWRITEBYTECODE",) if name in os.environ},
    }
