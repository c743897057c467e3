"""git objects: their content, their sizes, and writing them to disk."""

import contextlib
import tempfile
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path

import anyio

from forkjoin.core.error import GitRefusedError
from forkjoin.git import git


async def read_blob(where: str | Path, name: str, limit: int, extra: Mapping[str, str] | None = None) -> bytes:
    """Return the first `limit` bytes of a blob, or no bytes if the blob doesn't exist.

    Args:
        where: A worktree's root, or a git folder.
        name: The blob in the syntax of gitrevisions(7), e.g. `HEAD:path`.
        limit: The number of bytes.
        extra: Environment variables for git.
    """
    try:
        return await git.read_output(where, "cat-file", "blob", name, limit=limit, extra=extra)
    except GitRefusedError:
        return b""


async def read_sizes(repository: str | Path, objects: Iterable[str]) -> list[int]:
    """Return the size of each object in bytes, with one call of git."""
    stdin = "".join(f"{object_id}\n" for object_id in objects).encode()
    sizes = await git.output(repository, "cat-file", "--batch-check=%(objectsize)", stdin=stdin)
    return [int(size) for size in sizes.split()]


@contextlib.contextmanager
def temporary_objects(common_dir: str, parent: Path) -> Generator[dict[str, str]]:
    """Yield variables that make git write new objects to a temporary folder.

    git still reads the repository's own objects. The folder is deleted at the end of the context.

    Args:
        common_dir: The repository's common git folder.
        parent: The folder in which the temporary folder is made.
    """
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield {
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": quote_alternate(f"{common_dir}/objects"),
        }


def quote_alternate(objects: str) -> str:
    """Quote a path for GIT_ALTERNATE_OBJECT_DIRECTORIES (git(1))."""
    escaped = objects.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


async def sync_objects(common_dir: str) -> None:
    """Flush the file system with the repository's objects to disk.

    For many new objects this is much faster than an fsync of each.
    """
    await anyio.run_process(["sync", "--file-system", "--", f"{common_dir}/objects"], check=False)
