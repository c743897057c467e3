"""Kinds of repositories: functions that create one, and make its checkout the user's."""

import os
from collections.abc import Callable

from adversary.sandbox import Sandbox

State = Callable[[Sandbox], None]


def _plain(sandbox: Sandbox, *options: str, name: str = "repository") -> None:
    sandbox.make(sandbox.folder / "r" / name, *options)
    sandbox.settle(sandbox.folder / "r" / name)


def _shallow(sandbox: Sandbox, *options: str) -> None:
    origin = sandbox.folder / "origin"
    sandbox.make(origin)
    sandbox.write(origin, {"second.txt": "second\n"})
    sandbox.run(origin, "add", ".")
    sandbox.run(origin, "commit", "-qm", "second")
    where = sandbox.folder / "r" / "repository"
    sandbox.run(sandbox.folder, "clone", "-q", *(options or ("--depth=1",)), f"file://{origin}", str(where))
    sandbox.run(where, "branch", "release")
    sandbox.settle(where)


def _alternates(sandbox: Sandbox) -> None:
    sandbox.make(sandbox.folder / "origin")
    where = sandbox.folder / "r" / "repository"
    sandbox.run(sandbox.folder, "clone", "-q", "--shared", str(sandbox.folder / "origin"), str(where))
    sandbox.run(where, "branch", "release")
    sandbox.settle(where)


def _partial(sandbox: Sandbox) -> None:
    sandbox.make(sandbox.folder / "seed")
    sandbox.run(sandbox.folder / "seed", "config", "uploadpack.allowFilter", "true")
    where = sandbox.folder / "r" / "repository"
    sandbox.run(sandbox.folder, "clone", "-q", "--filter=blob:none", f"file://{sandbox.folder / 'seed'}", str(where))
    sandbox.run(where, "branch", "release")
    sandbox.settle(where)


def _bare(sandbox: Sandbox) -> None:
    sandbox.make(sandbox.folder / "origin")
    bare, where = sandbox.folder / "bare.git", sandbox.folder / "r" / "repository"
    sandbox.run(sandbox.folder, "clone", "-q", "--bare", str(sandbox.folder / "origin"), str(bare))
    sandbox.run(bare, "worktree", "add", "-q", str(where), "main")
    sandbox.settle(where)


def _linked(sandbox: Sandbox) -> None:
    sandbox.make(sandbox.folder / "first")
    sandbox.run(sandbox.folder / "first", "checkout", "-q", "--detach")
    sandbox.run(sandbox.folder / "first", "worktree", "add", "-q", str(sandbox.folder / "r" / "repository"), "main")
    sandbox.settle(sandbox.folder / "r" / "repository")


def _apart(sandbox: Sandbox) -> None:
    """Use a separate git folder.

    There git does not record where the checkout is, so merges into the checked-out branch fail.
    """
    _plain(sandbox, f"--separate-git-dir={sandbox.folder / 'apart.git'}")
    sandbox.blocks = True


def _elsewhere(sandbox: Sandbox) -> None:
    """Move the git folder, and name the checkout with core.worktree."""
    _plain(sandbox)
    moved = sandbox.folder / "r" / "git"
    (sandbox.repository / ".git").rename(moved)
    sandbox.run(moved, "--git-dir=.", "config", "core.worktree", str(sandbox.repository))
    (sandbox.repository / ".git").write_text(f"gitdir: {moved}\n")
    sandbox.settle(sandbox.repository)


def _unborn(sandbox: Sandbox) -> None:
    where = sandbox.folder / "r" / "repository"
    where.mkdir(parents=True)
    sandbox.run(where, "init", "-q")
    sandbox.settle(where)
    sandbox.blocks = True


def _in_bytes(sandbox: Sandbox) -> None:
    _plain(sandbox, name=os.fsdecode(b"r\xff\xfe"))
    sandbox.blocks = True


#: The kinds of repositories by name. Each history uses one.
MADE: dict[str, State] = {
    "plain": _plain,
    "shallow": _shallow,
    "alternates": _alternates,
    "partial": _partial,
    "bare with worktrees": _bare,
    "linked": _linked,
    "git folder apart": _apart,
    "core.worktree": _elsewhere,
    "unborn": _unborn,
    "a line end in the path": lambda sandbox: _plain(sandbox, name="new\nline"),
    "an odd path": lambda sandbox: _plain(sandbox, name='-it\'s "$(odd)" é'),
    "a path in bytes": _in_bytes,
    "reftable": lambda sandbox: _plain(sandbox, "--ref-format=reftable"),
    "sha256": lambda sandbox: _plain(sandbox, "--object-format=sha256"),
    "shared by a group": lambda sandbox: _plain(sandbox, "--shared=group"),
}
