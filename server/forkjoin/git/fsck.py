"""Checks of the objects that branches add to a target, as strict as `git fsck --strict`.

git's plumbing can make a tree with an entry `.git`, for example. A merge would accept that tree, and nobody could check
the commit out. Objects that the target has already are not checked: nobody repairs the faults of an old history.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from forkjoin.core.error import GitRefusedError
from forkjoin.git import git
from forkjoin.git.git_config import read_config
from forkjoin.git.objects import temporary_objects
from forkjoin.git.safe_options import NO_FSYNC

#: The command that packs commits and trees. It leaves files out: index-pack reads `.gitmodules` from the repository. It
#: ignores the commit graph, because a forged one could name other trees than the commits do.
_PACK = (
    *("-c", "core.commitGraph=false", "-c", "pack.compression=0", "pack-objects", "-q", "--stdout", "--revs"),
    *("--window=0", "--filter=blob:none", "--no-sparse", "--no-use-bitmap-index"),
)
_PARTIAL_CLONE = re.compile(r"extensions\.partialclone|remote\..*\.promisor", re.DOTALL)


async def find_malformed(common_dir: str, target: str, tips: Sequence[str], scratch: Path) -> dict[str, str]:
    """Return the tips that add malformed objects, each with git's error message.

    Args:
        common_dir: The repository's common git folder.
        target: The target's commit.
        tips: The commits to check, with everything that is reachable from them and not from the target.
        scratch: A folder for temporary files.
    """
    error = await _find_error(common_dir, target, tips, scratch) if tips else ""
    if not error:
        return {}
    if len(tips) == 1:
        return {tips[0]: error}
    middle = len(tips) // 2
    first = await find_malformed(common_dir, target, tips[:middle], scratch)
    return first | await find_malformed(common_dir, target, tips[middle:], scratch)


async def _find_error(common_dir: str, target: str, tips: Sequence[str], scratch: Path) -> str:
    """Return git's error about objects that these tips add, or an empty string."""
    revisions = "".join(f"{tip}\n" for tip in (*tips, f"^{target}")).encode()
    with temporary_objects(common_dir, scratch) as variables, tempfile.TemporaryFile(dir=scratch) as pack:
        try:
            await git.run(common_dir, *_PACK, stdin=revisions, stdout=pack, ok_codes=(0,))
        except GitRefusedError as error:  # git can't pack the objects because one is missing
            return error.last_line
        message = await _check_pack(common_dir, pack, variables, "--strict")
        if message and (option := await _find_milder_option(common_dir)):
            message = await _check_pack(common_dir, pack, variables, option)
        return message


async def _check_pack(common_dir: str, pack: IO[bytes], variables: Mapping[str, str], option: str) -> str:
    """Check the objects in a pack with git-index-pack(1).

    Return git's first error, or an empty string.
    """
    check = (*NO_FSYNC, "index-pack", "--stdin", option)
    try:
        await git.run(common_dir, *check, stdin=pack, extra=variables, ok_codes=(0,))
    except GitRefusedError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("error: ")]
        return lines[0].removeprefix("error: ") if lines else error.last_line
    return ""


async def _find_milder_option(common_dir: str) -> str:
    """Return an option for index-pack that is milder than `--strict`.

    Return an empty string if no setting asks for a milder check.

    The option allows what the `fsck.<msg-id>` settings in the user's own configuration allow. An agent can write to the
    repository's configuration, so that does not count. In a partial clone, objects may be missing.
    """
    entries = (await read_config(common_dir)).entries
    own = [entry for entry in entries if entry.key.startswith("fsck.") and not entry.is_from_repository]
    severities = [f"{entry.key.removeprefix('fsck.')}={entry.value}" for entry in own]
    is_partial = any(_PARTIAL_CLONE.fullmatch(entry.key) for entry in entries)
    option = "--fsck-objects" if is_partial else "--strict"
    return f"{option}={','.join(severities)}" if severities else option if is_partial else ""
