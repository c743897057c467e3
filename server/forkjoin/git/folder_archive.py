"""Folders kept as a tar file in a commit.

A git folder is kept byte for byte, and git never runs in it.
"""

import errno
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote
from typing import IO

from anyio import to_thread

from forkjoin.core.error import CallerError
from forkjoin.git import git, kept_refs
from forkjoin.git.commit_identity import FIXED_SIGNATURE
from forkjoin.git.file_names import printable_list

#: Bytes of more than this are not kept.
_MOST = 1024**3
#: What the tar file is called in the commit.
NAME = "files.tar"


async def archive_folders(
    common_dir: str, folders: Mapping[str, Path], commits: Iterable[str], name: str, message: str
) -> str:
    """Archive folders in a commit with `commits` as parents. Return its ref.

    To do so twice keeps them once, as long as nothing in them has changed.

    Raises:
        CallerError: The folders are too large, a file can't be read, or the disk is full.
    """
    try:
        with tempfile.TemporaryFile(dir=common_dir) as file:  # whose end writes, too
            await to_thread.run_sync(_pack, file, folders)
            # git reads a regular file piece by piece, what comes through a pipe as a whole.
            hashed = ("hash-object", "-w", "--no-filters", "--", f"/dev/fd/{file.fileno()}")
            blob = await git.output(common_dir, *hashed, pass_fds=(file.fileno(),))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CallerError(f"the disk that {common_dir} is on is full; make room there, then call again") from error
        raise CallerError(f"{error.filename or next(iter(folders))} can't be kept: {error.strerror}") from error
    tree = await git.output(common_dir, "mktree", stdin=f"100644 blob {blob}\t{NAME}\n".encode())
    parents = [f"-p{one}" for one in sorted(commits)]
    commit = await git.output(common_dir, "commit-tree", *parents, "-m", message, tree, extra=FIXED_SIGNATURE)
    return await kept_refs.keep_commit(common_dir, commit, name)


def restore_command(common_dir: str, ref: str, folder: Path) -> str:
    """Return the shell command that puts archived folders back below `folder`."""
    where, into = quote(common_dir), quote(str(folder))
    return f"mkdir -p {into} && git -C {where} cat-file blob {quote(f'{ref}:{NAME}')} | tar -x -C {into}"


def _pack(file: IO[bytes], folders: Mapping[str, Path]) -> None:
    """Write folders into a tar file, without sockets or the content of devices."""
    size = 0
    tops = sorted(map(str, folders.values()))
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, top in sorted(folders.items()):
            for path in (top, *_below(top)):
                size += os.lstat(path).st_size
                if size > _MOST:
                    raise CallerError(
                        f"{printable_list(tops)} {'have' if tops[1:] else 'has'} more than {_MOST // 1024**3} GB"
                        f"{' together' if tops[1:] else ''}, which is too large to keep. Move what is large away"
                    )
                tar.add(path, Path(name, path.relative_to(top)), recursive=False)
    file.flush()


def _below(top: Path) -> Iterable[Path]:
    if top.is_symlink() or not top.is_dir():
        return
    for above, folders, names in os.walk(top, onerror=_fail):
        folders.sort()
        yield from (Path(above, name) for name in sorted((*folders, *names)))


def _fail(error: OSError) -> None:
    raise error
