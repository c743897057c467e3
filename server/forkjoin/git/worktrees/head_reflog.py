"""The reflog of a worktree's HEAD, which tells of abandoned commits and of moves by other worktrees."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from anyio import to_thread

from forkjoin.core.regular_file import read_end
from forkjoin.git import git, kept_refs
from forkjoin.git.commit_identity import FIXED_SIGNATURE
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree, find_registered_worktree

#: Bytes that are read from the end of a reflog.
_LIMIT = 1024 * 1024
_ENTRY = re.compile(r"([0-9a-f]{40,64}) ([0-9a-f]{40,64}) [^\t]*\t?(.*)")
#: The reasons that git gives for a commit on top of the previous one.
_FORWARD = re.compile(r"commit(?: \((?:initial|merge)\))?: |(?:cherry-pick|revert|forkjoin): |merge ")
#: The reason that git gives when HEAD leaves a commit at which it was detached. The group is that commit.
_LEFT = re.compile(r"checkout: moving from ([0-9a-f]{40}|[0-9a-f]{64}) to ")


@dataclass(frozen=True, slots=True)
class ReflogEntry:
    """An entry of a reflog: a ref moved from one commit to another."""

    old: str  #: the id of a commit; zeros, or empty with a reftable, if the ref did not exist before
    new: str  #: the id of a commit; zeros if the ref was deleted
    why: str  #: the reason that git noted

    @property
    def is_forward(self) -> bool:
        """Whether `new` is known to contain `old`, judged by the reason."""
        return self.old == self.new or not self.old.strip("0") or bool(_FORWARD.match(self.why))


async def read_log(place: RegisteredWorktree) -> list[ReflogEntry]:
    """Return the entries of the reflog of a worktree's HEAD, the oldest first."""
    if not await to_thread.run_sync(Path(place.common_dir, "reftable").is_dir):
        return await to_thread.run_sync(_read_file, place.folder / "logs" / "HEAD")
    # For each entry git prints only the new commit. The old one is the new commit of the entry before.
    _, out, _ = await git.run(place.folder, "log", "--walk-reflogs", "--format=%H%x09%gs", "HEAD", "--")
    rows = [line.partition("\t") for line in os.fsdecode(out).splitlines()[::-1]]
    olds = ["", *(new for new, _, _ in rows)]
    return [ReflogEntry(old, new, why) for old, (new, _, why) in zip(olds, rows, strict=False)]


def _read_file(file: Path) -> list[ReflogEntry]:
    lines = (read_end(file, _LIMIT) or b"").decode(errors="replace").split("\n")
    return [ReflogEntry(*found.groups()) for found in map(_ENTRY.fullmatch, lines) if found]


def _read_branch(place: RegisteredWorktree, branch: str) -> list[ReflogEntry]:
    return _read_file(Path(place.common_dir, "logs", "refs", "heads", branch))


def find_moves(place: RegisteredWorktree, branch: str, tip: str | None, *, differs: bool) -> list[tuple[str, str]]:
    """Return the moves of an agent's branch that were made outside its worktree.

    Blocks. Such a move leaves a gap in the reflog of the worktree's HEAD. Expired entries and a switch of HEAD to
    another branch leave gaps too. A gap therefore counts only if the branch's reflog has a matching move. If somebody
    wrote the ref's file without git, the reflogs have no entry. Then the last gap counts if the worktree differs from
    HEAD.

    Args:
        tip: HEAD's commit, if HEAD is on the branch, else `None`.
        differs: Whether the worktree differs from HEAD, as it does after another worktree has moved the branch.

    Returns:
        Pairs of old and new commit. The new commit is zeros if the branch was deleted before the agent committed again.
    """
    entries = _read_file(place.folder / "logs" / "HEAD")
    gaps = _find_gaps([*entries, ReflogEntry(tip, tip, "")] if tip else entries)
    if not gaps:
        return []
    own = {(one.old, one.new) for one in entries}
    log = _read_branch(place, branch)
    others = {one.new for one in log if (one.old, one.new) not in own}
    if tip and differs:
        others.add(tip)
    others.update(one.old for one in log[:1] if (one.old, one.new) in {(own.old, own.new) for own in entries[1:]})
    return [(old, new) for old, new in gaps if new in others]


def _find_gaps(entries: Sequence[ReflogEntry]) -> list[tuple[str, str]]:
    """Return the gaps in a reflog, each as a pair of commits.

    There is a gap where an entry begins at another commit than that at which the entry before ended.
    """
    ends = ((before.new, after.old) for before, after in pairwise(entries))
    return [(old, new) for old, new in ends if old != new and old.strip("0")]


# -- abandoned commits


async def keep_detached_commits(place: RegisteredWorktree, keep_as: str) -> str | None:
    """Keep the commits on no branch that HEAD left after it had been detached.

    Return the ref that keeps them, or `None` if there are no such commits.
    """
    entries = await to_thread.run_sync(_read_file, place.folder / "logs" / "HEAD")
    left = [found[1] for one in entries if (found := _LEFT.match(one.why))]
    return await _keep(place.common_dir, left, f"detached/{keep_as}")


async def keep_abandoned_commits(common_dir: str, worktree: Path, branch: str, tip: str | None, keep_as: str) -> None:
    """Keep the commits that an agent abandoned by a reset, amend or rebase.

    Only reflogs name these commits.

    The caller does this before it removes the agent's worktree. The reflog of the branch is read too, because HEAD has
    none if core.logAllRefUpdates is false. Do nothing if the worktree is not registered.

    Args:
        common_dir: The common git folder of the repository.
        worktree: The agent's worktree.
        branch: The agent's branch.
        tip: The commit of that branch, or `None` if the branch is gone.
        keep_as: The name of the ref, below refs/forkjoin/kept/left/.

    Raises:
        GitError: The commits can't be read.
    """
    place = await find_registered_worktree(common_dir, worktree)
    if place is None:
        return
    logs = [await read_log(place), await to_thread.run_sync(_read_branch, place, branch)]
    if not all(_is_straight(entries, tip) for entries in logs):
        names = (name for entries in logs for one in entries for name in (one.old, one.new))
        await _keep(common_dir, names, f"left/{keep_as}")


def _is_straight(entries: Sequence[ReflogEntry], tip: str | None) -> bool:
    """Return whether a reflog leads to `tip` without a step that abandons a commit."""
    ends = [one.old for one in entries[1:]] + [tip]
    return all(one.is_forward and one.new == end for one, end in zip(entries, ends, strict=False))


async def _keep(common_dir: str, names: Iterable[str], name: str) -> str | None:
    """Keep those commits that no ref contains, under one ref.

    If there are several tips, the ref points to a merge of them.

    Args:
        names: Ids of commits. Zeros and missing commits are ignored.
        name: The name of the ref, below refs/forkjoin/kept/.

    Returns:
        The ref, or `None` if every commit is contained in a ref.
    """
    wanted = [one for one in dict.fromkeys(names) if one.strip("0")]
    if not wanted:
        return None
    command = ("rev-list", "--parents", "--ignore-missing", *wanted, "--not", "--all", "--")
    lines = [line.split(" ") for line in (await git.output(common_dir, *command)).splitlines()]
    lost = {line[0] for line in lines}.difference(*(line[1:] for line in lines))
    tips = [one for one in wanted if one in lost]
    if not tips:
        return None
    commit = tips[0]
    if len(tips) > 1:
        message = "Commits that were on no branch"
        parents = [f"-p{one}" for one in tips]
        command = ("commit-tree", *parents, "-m", message, f"{tips[-1]}^{{tree}}")
        commit = await git.output(common_dir, *command, extra=FIXED_SIGNATURE)
    return await kept_refs.keep_commit(common_dir, commit, name)
