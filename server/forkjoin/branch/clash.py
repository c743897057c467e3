"""Which commits conflict with each other, pair by pair, from one call of git (git-merge-tree(1))."""

from collections.abc import Iterator, Mapping, Sequence

from forkjoin.branch import git
from forkjoin.branch.conflict import read_conflicts, try_merge
from forkjoin.error import GitError

#: What is told of two that have no history in common.
UNRELATED = "(they have no common history)"


async def find_clashes(
    common_dir: str, pairs: Sequence[tuple[str, str]], aside: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """For each pair of commits, the files in which they conflict; `aside` tells git where its objects may go."""
    asked = "".join(f"{one} {other}\n" for one, other in pairs).encode()
    arguments = (*git.UNSYNCED, "merge-tree", "--stdin", "--name-only", "--messages")
    attributes = {"GIT_ATTR_SOURCE": pairs[0][0]}  # one can be named for all
    code, out, _ = await git.run(common_dir, *arguments, stdin=asked, extra={**attributes, **aside})
    if code:  # one that can't be merged at all ends it for all
        return [await _find(common_dir, *pair, aside) for pair in pairs]
    return list(_read(iter(out.decode(errors="replace").split("\0"))))


def _read(told: Iterator[str]) -> Iterator[tuple[str, ...]]:
    """What is told of each: whether it is clean, its tree, and what `read_conflicts` reads."""
    while is_clean := next(told, ""):
        next(told)
        yield read_conflicts(told, is_clean=is_clean == "1")


async def _find(common_dir: str, one: str, other: str, aside: Mapping[str, str]) -> tuple[str, ...]:
    try:
        return (await try_merge(common_dir, one, other, aside=aside)).conflicts
    except GitError as error:
        if "unrelated histories" not in error.stderr:
            raise
        return (UNRELATED,)
