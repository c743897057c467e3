"""Making many commits in one go (git-fast-import(1)); nothing points to them yet."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from forkjoin.git import git
from forkjoin.git.changed_paths import PathChange, changes_between
from forkjoin.git.commit_identity import make_signature
from forkjoin.git.refs import Tip

#: What the stream calls the branch that it builds. It is reset to nothing at its end, so that no such ref is written.
_REF = "refs/forkjoin/stream"


@dataclass(frozen=True, slots=True)
class NewCommit:
    """A commit that is to be made: what differs from its first parent, the commit made before it."""

    changes: Sequence[PathChange]
    merged: str | None  #: its second parent
    message: str
    author: str  #: `name <address> seconds zone`, as git has it
    committer: str


async def make_commits(repository: str, head: str, commits: Sequence[NewCommit], how: Sequence[str] = ()) -> list[Tip]:
    """Make these commits, the first on `head`, each other on the one before it; `how` are options of git's own."""
    stream = b"".join(_write(head, commits))
    arguments = (*how, "fast-import", "--quiet", "--done", "--date-format=raw")
    told = (await git.output(repository, *arguments, stdin=stream)).splitlines()
    trees = (line.split()[2] for line in told[1::2])  # "040000 tree <id>", and a tab
    return [Tip(commit, tree) for commit, tree in zip(told[::2], trees, strict=True)]


async def make_commit(repository: str, head: str, tree: str, merged: str | None, message: str, at: float) -> str:
    """Make one commit on `head`, with this tree, signed by whoever commits here at that time; its id."""
    signed = await make_signature(repository, at)
    changes = await changes_between(repository, head, tree)
    (made,) = await make_commits(
        repository, head, [NewCommit(changes, merged, message, signed.author, signed.committer)]
    )
    return made.commit


def _write(head: str, commits: Iterable[NewCommit]) -> Iterator[bytes]:
    for mark, commit in enumerate(commits, 1):
        who = f"author {commit.author}\ncommitter {commit.committer}"
        yield os.fsencode(f"commit {_REF}\nmark :{mark}\n{who}\n")
        yield _data(commit.message)
        yield f"from {head if mark == 1 else f':{mark - 1}'}\n".encode()
        if commit.merged:
            yield f"merge {commit.merged}\n".encode()
        gone_first = sorted(commit.changes, key=lambda change: change.kind != "D")  # where a folder was, a file may be
        yield from map(_edit, gone_first)
        yield f'\nget-mark :{mark}\nls :{mark} ""\n'.encode()
    yield f"reset {_REF}\n\ndone\n".encode()


def _edit(change: PathChange) -> bytes:
    path = os.fsencode(change.path).replace(b"\\", rb"\\").replace(b'"', rb"\"").replace(b"\n", rb"\n")
    if change.kind == "D":
        return b'D "%s"\n' % path
    mode, object_ = change.new
    return b'M %s %s "%s"\n' % (mode.encode(), object_.encode(), path)


def _data(text: str) -> bytes:
    data = text.encode(errors="replace")
    return b"data %d\n%s\n" % (len(data), data)
