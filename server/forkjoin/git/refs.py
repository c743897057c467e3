"""Refs and revisions: the commits that they mean, and changes of refs."""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forkjoin.core.error import GitRefusedError, git_error
from forkjoin.git import git
from forkjoin.git.file_names import printable

#: The number of bytes that the name of a revision or branch may have. The kernel refuses an argument of 128 KB.
_NAME_LIMIT = 4_000
#: git's error for a symbolic ref that leads in circles, and for a file that contains no ref.
_NO_SUCH_REF = "No such ref"


@dataclass(frozen=True, slots=True)
class Tip:
    """The commit that a branch points to, and its tree."""

    commit: str
    tree: str


def short_name(ref: str) -> str:
    """Return a ref's name without refs/heads/."""
    return ref.removeprefix("refs/heads/")


async def resolve_commit(where: str | Path, revision: str) -> str | None:
    """Return the id of the commit that a revision means, or `None` without one.

    A revision is for example the name of a branch or tag, or an abbreviated id (gitrevisions(7)).
    """
    if not _is_argument(revision):
        return None
    code, out, _ = await git.run(
        where, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    return out.decode().strip() if code == 0 else None


async def is_branch_name(name: str) -> bool:
    """Return whether a branch may have this name (git-check-ref-format(1)).

    A name that starts with `-` may not.
    """
    if name.startswith("-") or not _is_argument(name):
        return False
    return (await git.run("/", "check-ref-format", f"refs/heads/{name}"))[0] == 0


def _is_argument(text: str) -> bool:
    """Return whether a text can be an argument of a process.

    It can't if it contains NUL or a character that the file system's encoding lacks, or is too long.
    """
    try:
        data = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return b"\0" not in data and len(data) <= _NAME_LIMIT


async def find_branch(repository: str | Path, name: str) -> str | None:
    """Return the full ref name of a branch, or `None` if there is no such branch.

    For a symbolic ref, return its target.
    """
    ref = f"refs/heads/{name}"
    if not await is_branch_name(name):
        return None
    lines = await list_refs(repository, "--format=%(refname) %(symref)", "--", ref)
    targets = dict(line.split(" ") for line in lines)  # for `main`, git also lists `main/x`
    return targets[ref] or ref if ref in targets else None


async def find_tip(repository: str | Path, ref: str) -> str | None:
    """Return a branch's commit, or `None` if it is missing, symbolic or damaged.

    Args:
        repository: A worktree's root, or a git folder.
        ref: The branch's full ref name.
    """
    try:
        found = (await find_tips(repository, [ref])).get(ref)
    except GitRefusedError:  # the repository or the commit is missing
        return None
    return found.commit if found else None


async def find_tips(repository: str | Path, refs: Sequence[str]) -> dict[str, Tip]:
    """Return the tips of branches, by full ref name.

    Leave out branches that are missing or damaged, or symbolic, because a symbolic ref has another branch's commits.

    Raises:
        GitRefusedError: git can't read the only branch in `refs`, or the repository.
    """
    try:
        return await _read_tips(repository, refs)
    except GitRefusedError:  # git lists no ref at all if one of them points to a missing object
        if len(refs) == 1:
            raise
    found: dict[str, Tip] = {}
    for ref in refs:
        with contextlib.suppress(GitRefusedError):
            found |= await _read_tips(repository, [ref])
    return found


async def _read_tips(repository: str | Path, refs: Sequence[str]) -> dict[str, Tip]:
    form = "--format=%(refname) %(objecttype) %(objectname) %(tree) %(symref)"
    rows = [line.split(" ") for line in await list_refs(repository, form, "--", *refs)]
    return {ref: Tip(commit, tree) for ref, kind, commit, tree, target in rows if kind == "commit" and not target}


async def list_refs(repository: str | Path, *arguments: str) -> list[str]:
    """Return the lines that `git for-each-ref` prints with these arguments."""
    return [line for line in (await git.output(repository, "for-each-ref", *arguments)).split("\n") if line]


async def is_ancestor(repository: str | Path, old: str, new: str) -> bool:
    """Return whether the commit `old` is `new` or an ancestor of `new`.

    Raises:
        GitError: One of the commits is missing, or git can't tell.
    """
    return (await git.run(repository, "merge-base", "--is-ancestor", old, new, ok_codes=(0, 1)))[0] == 0


async def is_symbolic(repository: str | Path, ref: str) -> bool:
    """Return whether a full ref name is a symbolic ref."""
    return (await git.run(repository, "symbolic-ref", "--quiet", "--", ref))[0] == 0


async def find_symbolic_target(repository: str | Path, ref: str) -> str | None:
    """Return the target of a symbolic ref.

    Return `None` if the ref is missing or not symbolic.

    Return an empty string if the ref leads in circles or its file contains no ref.
    """
    arguments = ("symbolic-ref", "--quiet", ref)
    code, out, stderr = await git.run(repository, *arguments)
    if code not in (0, 1) and _NO_SUCH_REF not in stderr:
        raise git_error(arguments, code, stderr)
    return os.fsdecode(out).removesuffix("\n") if code != 1 else None


def describe_symbolic_target(target: str) -> str:
    """Return the end of a sentence "The branch is …".

    Use it for a branch that is symbolic or damaged.

    Args:
        target: What `find_symbolic_target` returned for the branch.
    """
    return f"a symbolic ref to {printable(target)[:200]}, which counts as gone" if target else "damaged"


async def update_refs(
    repository: str | Path,
    lines: Iterable[str],
    reason: str,
    *,
    extra: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> None:
    """Change refs in one transaction.

    A symbolic ref is changed itself, not its target.

    Args:
        repository: A worktree's root, or a git folder.
        lines: Commands of `git update-ref --stdin`, e.g. `create <ref> <commit>`.
        reason: The message in the refs' reflogs.
        extra: Environment variables for git.
        pass_fds: File descriptors that git inherits.

    Raises:
        GitError: git refused a command, for example because a ref doesn't have the old value in it. No ref has changed.
    """
    changes = (f"option no-deref\n{line}" for line in lines)
    script = "".join(f"{line}\n" for line in ("start", *changes, "prepare", "commit"))
    arguments = ("update-ref", "--create-reflog", "-m", reason, "--stdin")
    await git.output(repository, *arguments, stdin=os.fsencode(script), extra=extra, pass_fds=pass_fds)
