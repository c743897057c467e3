"""Archives of folders: a tar file in a commit, kept reachable by a ref.

A git folder is archived byte for byte. git is never run in it.
"""

import errno
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

#: The number of bytes that the files of one archive may have together.
_SIZE_LIMIT = 1024**3
#: The tar file's name in the commit.
_TAR_NAME = "files.tar"


async def archive_folders(
    common_dir: str, folders: Mapping[str, Path], commits: Iterable[str], name: str, message: str
) -> str:
    """Archive folders in a new commit. Return the ref that keeps the commit reachable.

    Archiving unchanged folders again returns the same ref.

    Args:
        common_dir: The common git folder of the repository that gets the commit.
        folders: The folders to archive, by the paths that they get in the tar file.
        commits: Commits that should stay reachable, too. They become the new commit's parents.
        name: The name of the ref below refs/forkjoin/kept/.
        message: The commit message.

    Raises:
        CallerError: The folders are too large, a file can't be read, or the disk is full.
    """
    try:
        with tempfile.TemporaryFile(dir=common_dir) as file:
            await to_thread.run_sync(_pack, file, folders)
            # The archive is in a file, because git reads the whole of a pipe into memory, but streams a regular file.
            hash_file = ("hash-object", "-w", "--no-filters", "--", f"/dev/fd/{file.fileno()}")
            blob = await git.output(common_dir, *hash_file, pass_fds=(file.fileno(),))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CallerError(f"the disk of {common_dir} is full; free some space there, then call again") from error
        raise CallerError(
            f"{error.filename or next(iter(folders))} can't be archived: {error.strerror}. Mend that, then call again"
        ) from error
    tree = await git.output(common_dir, "mktree", stdin=f"100644 blob {blob}\t{_TAR_NAME}\n".encode())
    parents = [f"-p{parent}" for parent in sorted(commits)]
    commit = await git.output(common_dir, "commit-tree", *parents, "-m", message, tree, extra=FIXED_SIGNATURE)
    return await kept_refs.keep_commit(common_dir, commit, name)


def restore_command(common_dir: str, ref: str, folder: Path) -> str:
    """Return a shell command that extracts the archive of a ref below `folder`."""
    where, into = quote(common_dir), quote(str(folder))
    return f"mkdir -p {into} && git -C {where} cat-file blob {quote(f'{ref}:{_TAR_NAME}')} | tar -x -C {into}"


def _pack(file: IO[bytes], folders: Mapping[str, Path]) -> None:
    """Write folders to a tar file, without the sockets in them.

    Of pipes and devices, only the name and the mode are written.

    Raises:
        CallerError: The folders are too large.
    """
    size = 0

    def check_size(member: tarfile.TarInfo) -> tarfile.TarInfo:
        nonlocal size
        size += member.size
        if size > _SIZE_LIMIT:
            tops = printable_list(sorted(map(str, folders.values())))
            problem = f"more than {_SIZE_LIMIT // 1024**3} GB, too large to archive"
            raise CallerError(f"{tops}: {problem}. Move large files away, then call again")
        return member

    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, top in sorted(folders.items()):
            tar.add(top, name, filter=check_size)
    file.flush()
