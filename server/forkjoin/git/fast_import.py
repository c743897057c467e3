"""Commits made with git-fast-import(1), many with one call. No ref points to them."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from forkjoin.git import git
from forkjoin.git.changed_paths import PathChange, changes_between
from forkjoin.git.commit_identity import make_signature
from forkjoin.git.refs import Tip

#: The branch that the stream commits to. The last command resets it to no commit, so that git doesn't create the ref.
_STREAM_REF = "refs/forkjoin/stream"


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit to make. Its first parent is the commit made before it."""

    changes: Sequence[PathChange]  #: the changes since the first parent
    second_parent: str | None  #: the commit that is merged; `None` for an ordinary commit
    message: str
    author: str  #: `name <address> <seconds since 1970> zone`
    committer: str  #: in the same form


async def make_commits(
    repository: str, head: str, commits: Sequence[NewCommit], options: Sequence[str] = ()
) -> list[Tip]:
    """Make a chain of commits on top of `head`. Return their ids and trees, in order.

    Args:
        repository: A worktree's root, or a git folder.
        head: The first parent of the first commit. Each other commit has the one before it as its first parent.
        commits: The commits, in order.
        options: Options of git, before the subcommand.
    """
    stream = b"".join(_write(head, commits))
    arguments = (*options, "fast-import", "--quiet", "--done", "--date-format=raw")
    # For each commit, git prints a line with its id, and a line "040000 tree <id>" with a tab at its end.
    lines = (await git.output(repository, *arguments, stdin=stream)).splitlines()
    trees = (line.split()[2] for line in lines[1::2])
    return [Tip(commit, tree) for commit, tree in zip(lines[::2], trees, strict=True)]


async def make_commit(repository: str, head: str, tree: str, second_parent: str | None, message: str, at: float) -> str:
    """Make a commit with a given tree on top of `head`. Return its id.

    The author is the user, or forkjoin if git doesn't know the user's identity in this repository.

    Args:
        repository: A worktree's root, or a git folder.
        head: The first parent.
        tree: The tree of the commit.
        second_parent: The commit that is merged, or `None` for an ordinary commit.
        message: The commit message.
        at: The time of the commit, in seconds since 1970.
    """
    signature = await make_signature(repository, at)
    changes = await changes_between(repository, head, tree)
    (made,) = await make_commits(
        repository, head, [NewCommit(changes, second_parent, message, signature.author, signature.committer)]
    )
    return made.commit


def _write(head: str, commits: Iterable[NewCommit]) -> Iterator[bytes]:
    for mark, commit in enumerate(commits, 1):
        who = f"author {commit.author}\ncommitter {commit.committer}"
        yield os.fsencode(f"commit {_STREAM_REF}\nmark :{mark}\n{who}\n")
        yield _data(commit.message)
        yield f"from {head if mark == 1 else f':{mark - 1}'}\n".encode()
        if commit.second_parent:
            yield f"merge {commit.second_parent}\n".encode()
        # Deletions come first: a new file may take the place of a folder.
        yield from map(_edit, sorted(commit.changes, key=lambda change: change.kind != "D"))
        yield f'\nget-mark :{mark}\nls :{mark} ""\n'.encode()
    yield f"reset {_STREAM_REF}\n\ndone\n".encode()


def _edit(change: PathChange) -> bytes:
    path = os.fsencode(change.path).replace(b"\\", rb"\\").replace(b'"', rb"\"").replace(b"\n", rb"\n")
    if change.kind == "D":
        return b'D "%s"\n' % path
    mode, object_ = change.new
    return b'M %s %s "%s"\n' % (mode.encode(), object_.encode(), path)


def _data(text: str) -> bytes:
    data = text.encode(errors="replace")
    return b"data %d\n%s\n" % (len(data), data)
