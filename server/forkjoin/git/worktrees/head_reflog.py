"""The log of a worktree's HEAD: what was committed there, what was left behind, and which moves came from elsewhere."""

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
from forkjoin.git.worktrees.worktree_folder import RegisteredWorktree

#: Bytes of a log that are read, from its end.
_LIMIT = 1024 * 1024
_ENTRY = re.compile(r"([0-9a-f]{40,64}) ([0-9a-f]{40,64}) [^\t]*\t?(.*)")
#: What git says of a commit on top of the one before.
_FORWARD = re.compile(r"commit(?: \((?:initial|merge)\))?: |(?:cherry-pick|revert|forkjoin): |merge ")
#: How git says that HEAD was on no branch, and went away from there.
_LEFT = re.compile(r"checkout: moving from ([0-9a-f]{40}|[0-9a-f]{64}) to ")


@dataclass(frozen=True, slots=True)
class Entry:
    """A move, as a log tells it."""

    old: str  #: a commit; only zeros where there was none, as in `new`
    new: str
    why: str

    @property
    def is_forward(self) -> bool:
        """Whether `new` has all that `old` has."""
        return self.old == self.new or not self.old.strip("0") or bool(_FORWARD.match(self.why))


async def read_log(place: RegisteredWorktree) -> list[Entry]:
    """Return the entries of the log of HEAD, oldest first."""
    if not await to_thread.run_sync(Path(place.common_dir, "reftable").is_dir):
        return await to_thread.run_sync(_read_file, place.folder / "logs" / "HEAD")
    # git reads that log if HEAD has a commit, and tells of each entry only where it leads.
    _, out, _ = await git.run(place.folder, "log", "--walk-reflogs", "--format=%H%x09%gs", "HEAD", "--")
    told = [line.partition("\t") for line in os.fsdecode(out).splitlines()[::-1]]
    olds = ["", *(new for new, _, _ in told)]
    return [Entry(old, new, why) for old, (new, _, why) in zip(olds, told, strict=False)]


def _read_file(file: Path) -> list[Entry]:
    lines = (read_end(file, _LIMIT) or b"").decode(errors="replace").split("\n")
    return [Entry(*found.groups()) for found in map(_ENTRY.fullmatch, lines) if found]


def _read_branch(place: RegisteredWorktree, branch: str) -> list[Entry]:
    return _read_file(Path(place.common_dir, "logs", "refs", "heads", branch))


def find_moves(place: RegisteredWorktree, branch: str, tip: str | None, *, differs: bool) -> list[tuple[str, str]]:
    """Return the moves of an agent's branch that others have made, each from a commit to another. Blocks.

    HEAD's log has a gap there. But so it has where git expired some of it, and where HEAD was led to another branch:
    the branch's own log must have such a move. It has none either of a file that was written without git.
    A branch that was deleted went to zeros, if the agent has committed since: its log begins with that commit.

    Args:
        tip: The commit at HEAD, if that is on the branch.
        differs: Whether the worktree differs from HEAD, as it does once another has moved the branch.
    """
    entries = _read_file(place.folder / "logs" / "HEAD")
    gaps = _find_gaps([*entries, Entry(tip, tip, "")] if tip else entries)
    if not gaps:
        return []
    own = {(one.old, one.new) for one in entries}
    log = _read_branch(place, branch)
    others = {one.new for one in log if (one.old, one.new) not in own}
    if tip and differs:
        others.add(tip)
    others.update(one.old for one in log[:1] if (one.old, one.new) in {(own.old, own.new) for own in entries[1:]})
    return [(old, new) for old, new in gaps if new in others]


def _find_gaps(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return where an entry does not begin at the commit at which the one before it ends."""
    ends = ((before.new, after.old) for before, after in pairwise(entries))
    return [(old, new) for old, new in ends if old != new and old.strip("0")]


# -- what was left behind


async def keep_detached_commits(place: RegisteredWorktree, keep_as: str) -> str | None:
    """Keep the commits that were made on no branch, and that HEAD went away from. Return the ref, if there are some."""
    entries = await to_thread.run_sync(_read_file, place.folder / "logs" / "HEAD")
    left = [found[1] for one in entries if (found := _LEFT.match(one.why))]
    return await _keep(place.common_dir, left, f"detached/{keep_as}")


async def keep_abandoned_commits(place: RegisteredWorktree, branch: str, tip: str | None, keep_as: str) -> str | None:
    """Keep the commits that only logs name, after a reset, an amend or a rebase. Return the ref, if any.

    The log of the agent's branch is read, too: where core.logAllRefUpdates is false, HEAD has none.

    Args:
        tip: The commit at the branch.
    """
    logs = [await read_log(place), await to_thread.run_sync(_read_branch, place, branch)]
    if all(_is_straight(entries, tip) for entries in logs):
        return None
    names = (name for entries in logs for one in entries for name in (one.old, one.new))
    return await _keep(place.common_dir, names, f"left/{keep_as}")


def _is_straight(entries: Sequence[Entry], tip: str | None) -> bool:
    """Return whether a log leads to `tip`, and leaves nothing behind on the way."""
    ends = [one.old for one in entries[1:]] + [tip]
    return all(one.is_forward and one.new == end for one, end in zip(entries, ends, strict=False))


async def _keep(common_dir: str, names: Iterable[str], name: str) -> str | None:
    """Keep those of these commits that no ref has: by one ref, at the commit or at a merge of them."""
    wanted = [one for one in dict.fromkeys(names) if one.strip("0")]
    if not wanted:
        return None
    asked = ("rev-list", "--parents", "--ignore-missing", *wanted, "--not", "--all", "--")
    lines = [line.split(" ") for line in (await git.output(common_dir, *asked)).splitlines()]
    lost = {line[0] for line in lines}.difference(*(line[1:] for line in lines))
    tips = [one for one in wanted if one in lost]
    if not tips:
        return None
    commit = tips[0]
    if len(tips) > 1:
        message = "Commits that were on no branch"
        parents = [f"-p{one}" for one in tips]
        commit = await git.output(
            common_dir, "commit-tree", *parents, "-m", message, f"{tips[-1]}^{{tree}}", extra=FIXED_SIGNATURE
        )
    return await kept_refs.keep_commit(common_dir, commit, name)
