"""Deletion of files and folders of any kind."""

import contextlib
import os
import shutil
import stat
from pathlib import Path


def delete_path(path: Path) -> None:
    """Delete the file, symlink or folder at `path`, with the read-only folders in it.

    Blocks. Do nothing if `path` doesn't exist.
    """
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(NotADirectoryError):  # a parent of `path` is a file, e.g. refs/heads with a reftable
            path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        path.chmod(stat.S_IRWXU)
        for above, names, _ in os.walk(path):
            for folder in (Path(above, name) for name in names):
                if not folder.is_symlink():
                    folder.chmod(stat.S_IRWXU)
        shutil.rmtree(path)
