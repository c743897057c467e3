"""Checks of the objects that branches add to a target, as strict as `git fsck --strict`.

git's plumbing can make a tree with an entry `.git`, a merge would accept it, and nobody could check the commit out.
Objects that the target has already are not checked, because an old history may have faults that nobody repairs.
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

#: Packs commits and trees. index-pack reads `.gitmodules` itself. A forged commit graph could name other trees.
_PACK = (
    *("-c", "core.commitGraph=false", "-c", "pack.compression=0", "pack-objects", "-q", "--stdout", "--revs"),
    *("--window=0", "--filter=blob:none", "--no-sparse", "--no-use-bitmap-index"),
)

_SETTINGS = r"^(fsck\..*|extensions\.partialclone|remote\..*\.promisor)$"


async def find_malformed(common_dir: str, target: str, tips: Sequence[str], scratch: Path) -> dict[str, str]:
    """Return the tips with malformed objects, each with git's error message.

    Args:
        target: A commit. Its objects are not checked.
        tips: The commits whose objects are checked.
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
    """Return git's error about new objects of these tips, or an empty string."""
    revisions = "".join(f"{tip}\n" for tip in (*tips, f"^{target}")).encode()
    with temporary_objects(common_dir, scratch) as variables, tempfile.TemporaryFile(dir=scratch) as pack:
        try:
            await git.run(common_dir, *_PACK, stdin=revisions, stdout=pack, ok_codes=(0,))
        except GitRefusedError as error:  # an object is missing
            return error.last_line
        message = await _index(common_dir, pack, variables, "--strict")
        if message and (option := await _find_milder_option(common_dir)):
            message = await _index(common_dir, pack, variables, option)
        return message


async def _index(common_dir: str, pack: IO[bytes], variables: Mapping[str, str], option: str) -> str:
    """Check a pack with index-pack. Return git's first error, or an empty string."""
    check = (*NO_FSYNC, "index-pack", "--stdin", option)
    try:
        await git.run(common_dir, *check, stdin=pack, extra=variables, ok_codes=(0,))
    except GitRefusedError as error:
        return _first_error(error)
    return ""


def _first_error(error: GitRefusedError) -> str:
    lines = [line for line in error.stderr.splitlines() if line.startswith("error: ")]
    return lines[0].removeprefix("error: ") if lines else error.last_line


async def _find_milder_option(common_dir: str) -> str:
    """Return an option for index-pack that is milder than `--strict`.

    Return an empty string if none applies.

    The option allows what the user's own `fsck.<msg-id>` settings allow; the repository's settings don't count. In a
    partial clone, missing objects are allowed too.
    """
    _, out, _ = await git.run(common_dir, "config", "-z", "--show-scope", "--get-regexp", _SETTINGS)
    fields = os.fsdecode(out).split("\0")
    entries = [(scope, *entry.partition("\n")[::2]) for scope, entry in zip(fields[::2], fields[1::2], strict=False)]
    own = [(key, value) for scope, key, value in entries if scope in ("global", "system")]
    severities = [f"{key.removeprefix('fsck.')}={value}" for key, value in own if key.startswith("fsck.")]
    is_partial = any(not key.startswith("fsck.") for _, key, _ in entries)
    option = "--fsck-objects" if is_partial else "--strict"
    return f"{option}={','.join(severities)}" if severities else option if is_partial else ""
