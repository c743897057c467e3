"""Commits and worktrees for tests, the whole state of a repository, and fake `git` programs in PATH."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from forkjoin.git.worktrees import worktree
from forkjoin.git.worktrees.worktree_folder import git_folder
from support.harness import git

REAL_GIT = shutil.which("git") or "git"

#: The version of git, as (major, minor). Some tests need a newer git than forkjoin does.
GIT_VERSION = tuple(int(part) for part in re.findall(r"\d+", git(Path("/"), "version"))[:2])

OWNER = "a1 of /somewhere"

#: A command prefix that drops root's capabilities, so that file permissions apply.
_BOUND = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def run_bound(script: str) -> str:
    """Run a Python script as a user that file permissions apply to. Return its stdout."""
    if _BOUND and not shutil.which(_BOUND[0]):
        pytest.skip("running as root without setpriv")
    return subprocess.run([*_BOUND, sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class Fork:
    """An agent's worktree and its branch."""

    repository: Path
    path: Path
    branch: str
    base: str

    @property
    def common_dir(self) -> str:
        return str(self.repository / ".git")

    @property
    def folder(self) -> Path:
        """The worktree's own git folder."""
        found = git_folder(self.common_dir, self.path)
        assert found
        return found

    def tip(self) -> str:
        return git(self.repository, "rev-parse", self.branch)


async def make_fork(repository: Path, name: str = "a1-left") -> Fork:
    """Make a worktree like an agent's, in a folder next to the repository."""
    path = repository.parent / "worktrees" / name
    base = git(repository, "rev-parse", "HEAD")
    branch = await worktree.make(str(repository / ".git"), path, f"forkjoin/{name}", base, f"{name} of /somewhere")
    return Fork(repository, path, branch, base)


def commit(where: Path, files: Mapping[str, str | None], message: str = "work") -> str:
    """Commit these files and nothing else. Return the commit.

    `None` as the text deletes a file.
    """
    for name, text in files.items():
        write(where, name, text)
    git(where, "add", "--all", "--force", "--", *files)
    git(where, "commit", "-q", "-m", message)
    return git(where, "rev-parse", "HEAD")


def put_raw(repository: Path, name: str, data: bytes) -> None:
    """Commit a file's bytes without the conversions that its attributes ask for."""
    (repository / name).write_bytes(data)
    blob = git(repository, "hash-object", "-w", "--no-filters", name)
    git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    git(repository, "commit", "-qm", name)
    (repository / name).unlink()
    git(repository, "checkout-index", "-f", name)


def touch(where: Path) -> None:
    """Set old times on all files, so that git compares their contents again."""
    for file in where.iterdir():
        os.utime(file, (1, 1))


def write(where: Path, name: str, text: str | None) -> None:
    """Write a file and create its folders. Delete it if the text is `None`."""
    if text is None:
        (where / name).unlink()
    else:
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)


def blob(where: Path, revision: str, name: str | bytes) -> bytes:
    """Return the bytes of a file in a commit."""
    path = os.fsencode(revision) + b":" + os.fsencode(name)
    return subprocess.run(["git", "-C", str(where), "cat-file", "blob", path], capture_output=True, check=True).stdout


def files_of(where: Path, revision: str) -> list[str]:
    """Return the files of a commit, each as "<mode> <path>"."""
    listing = git(where, "ls-tree", "-r", "-z", revision)
    return [f"{row.split()[0]} {row.partition(chr(9))[2]}" for row in listing.split("\0") if row]


def everything(repository: Path) -> dict[str, object]:
    """Return a repository's refs, worktrees, index, files, stash and locks."""
    top = repository / ".git"
    return {
        "refs": git(repository, "for-each-ref"),
        "HEAD": (top / "HEAD").read_text(),
        "worktrees": sorted(path.name for path in (top / "worktrees").iterdir())
        if (top / "worktrees").exists()
        else None,
        "list": git(repository, "worktree", "list", "--porcelain"),
        "index": (top / "index").read_bytes(),
        "stash": git(repository, "stash", "list"),
        "files": contents(repository),
        "locks": [str(path) for path in top.rglob("*.lock") if path.name != "forkjoin.lock"],
    }


def contents(top: Path) -> dict[str, bytes | str]:
    """Return the bytes of each file and the target of each symlink below a folder.

    Omit everything in a `.git`.
    """
    return {
        str(path.relative_to(top)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in top.rglob("*")
        if ".git" not in path.relative_to(top).parts and (path.is_symlink() or path.is_file())
    }


def put_git(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, *, everything: bool = False) -> None:
    """Put a fake `git` first in PATH.

    The fake runs a shell script, and then the real git unless the script exits. Calls that list the configuration skip
    the script, unless `everything` is true.
    """
    folder.mkdir(exist_ok=True)
    listing = f'case " $* " in *" config --list "*) exec {REAL_GIT} "$@";; esac' * (not everything)
    (folder / "git").write_text(f'#!/bin/sh\n{listing}\n{script}\nexec {REAL_GIT} "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def put_counting_git(folder: Path, monkeypatch: pytest.MonkeyPatch, *, everything: bool = False) -> Path:
    """Put a `git` first in PATH that logs the arguments of each call on a line.

    Return the log.
    """
    log = folder / "calls"
    put_git(folder, monkeypatch, f'echo "$*" >> {log}', everything=everything)
    log.touch()
    return log


def put_hooks(folder: Path, told: Path) -> None:
    """Install hooks that each append their name to the file `told`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pre-commit", "commit-msg", "post-commit", "post-checkout", "post-merge", "post-index-change"):
        _put_hook(folder / name, told)
    _put_hook(folder / "reference-transaction", told)


def _put_hook(file: Path, told: Path) -> None:
    file.write_text(f"#!/bin/sh\necho {file.name} >> {told}\n")
    file.chmod(0o755)


#: A fake gpg that signs anything, and logs each verification.
_GPG = """#!/bin/sh
cat > /dev/null
case "$*" in *--verify*) echo verified >> {0};; *) echo "[GNUPG:] SIG_CREATED D" >&2; echo signature;; esac
"""


def sign(repository: Path, told: Path) -> str:
    """Sign the last commit, and configure git to verify signatures in `git log`.

    Each verification appends a line to `told`. Return the commit.
    """
    program = told.with_name("gpg")
    program.write_text(_GPG.format(told))
    program.chmod(0o755)
    for name, value in (("gpg.program", str(program)), ("log.showSignature", "true")):
        git(repository, "config", name, value)
    git(repository, "commit", "-q", "--amend", "--no-edit", "--allow-empty", "-S")
    return git(repository, "rev-parse", "HEAD")
