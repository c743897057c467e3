"""Checking the objects that branches bring along, as `git fsck --strict` does.

git's own commands make no tree with an entry `.git`, but its plumbing does, and merges take it as it is. Nobody could
check such a commit out. What the target has already is not looked at: an old history may have faults that nobody mends.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from forkjoin.core.error import GitRefusedError
from forkjoin.git import git
from forkjoin.git.objects import temporary_objects
from forkjoin.git.safe_options import NO_FSYNC

#: Commits and trees; index-pack reads `.gitmodules` itself. The commit graph could tell of other trees than there are.
_PACK = (
    *("-c", "core.commitGraph=false", "-c", "pack.compression=0", "pack-objects", "-q", "--stdout", "--revs"),
    *("--window=0", "--filter=blob:none", "--no-sparse", "--no-use-bitmap-index"),
)

_SETTINGS = r"^(fsck\..*|extensions\.partialclone|remote\..*\.promisor)$"


async def find_malformed(common_dir: str, target: str, tips: Sequence[str], aside: Path) -> dict[str, str]:
    """Return the tips that `git fsck --strict` refuses, each with git's message.

    Args:
        target: The commit whose objects are taken as they are.
        aside: A folder for temporary files.
    """
    why = await _why_malformed(common_dir, target, tips, aside) if tips else ""
    if not why:
        return {}
    if len(tips) == 1:
        return {tips[0]: why}
    middle = len(tips) // 2
    first = await find_malformed(common_dir, target, tips[:middle], aside)
    return first | await find_malformed(common_dir, target, tips[middle:], aside)


async def _why_malformed(common_dir: str, target: str, tips: Sequence[str], aside: Path) -> str:
    """Return git's complaint about objects new in these tips, or an empty string."""
    wanted = "".join(f"{tip}\n" for tip in (*tips, f"^{target}")).encode()
    with temporary_objects(common_dir, aside) as elsewhere, tempfile.TemporaryFile(dir=aside) as pack:
        try:
            await git.run(common_dir, *_PACK, stdin=wanted, stdout=pack, ok_codes=(0,))
        except GitRefusedError as error:  # an object is missing
            return error.last_line
        why = await _why_refused(common_dir, pack, elsewhere, "--strict")
        if why and (option := await _milder_option(common_dir)):
            why = await _why_refused(common_dir, pack, elsewhere, option)
        return why


async def _why_refused(common_dir: str, pack: IO[bytes], elsewhere: Mapping[str, str], option: str) -> str:
    check = (*NO_FSYNC, "index-pack", "--stdin", option)
    try:
        await git.run(common_dir, *check, stdin=pack, extra=elsewhere, ok_codes=(0,))
    except GitRefusedError as error:
        return _first_error(error)
    return ""


def _first_error(error: GitRefusedError) -> str:
    lines = [line for line in error.stderr.splitlines() if line.startswith("error: ")]
    return lines[0].removeprefix("error: ") if lines else error.last_line


async def _milder_option(common_dir: str) -> str:
    """Return the user's severities for index-pack, or an empty string.

    The person's own `fsck.<msg-id>` settings count, the repository's don't. In a partial clone objects may be missing.
    """
    _, out, _ = await git.run(common_dir, "config", "-z", "--show-scope", "--get-regexp", _SETTINGS)
    fields = os.fsdecode(out).split("\0")
    entries = [(scope, *entry.partition("\n")[::2]) for scope, entry in zip(fields[::2], fields[1::2], strict=False)]
    own = [(key, value) for scope, key, value in entries if scope in ("global", "system")]
    severities = [f"{key.removeprefix('fsck.')}={value}" for key, value in own if key.startswith("fsck.")]
    is_partial = any(not key.startswith("fsck.") for _, key, _ in entries)
    option = "--fsck-objects" if is_partial else "--strict"
    return f"{option}={','.join(severities)}" if severities else option if is_partial else ""
