"""Atomic replacement of files: a reader finds the old content or the new content, never a part.

Standard library only, and without pathlib, since the shim imports this module.
"""

import contextlib
import os


def write_atomically(
    file: "str | os.PathLike[str]", data: bytes, *, mode: int | None = 0o600, durable: bool = False
) -> None:
    """Replace a file, or create it, with this content.

    The content goes to a new file in the same folder, which is then renamed. A symlink at `file` is replaced, not
    followed.

    Args:
        mode: The exact permissions of the file. `None` means 0o666 less the umask.
        durable: Whether to call fsync(2) before the rename, so that the content survives a power failure.

    Raises:
        OSError: The file was not replaced, for example because the disk is full.
    """
    temporary = f"{os.fspath(file)}.{os.urandom(4).hex()}.new"
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else mode
    )
    try:
        with os.fdopen(descriptor, "wb") as opened:
            if mode is not None:
                os.fchmod(descriptor, mode)
            opened.write(data)
            opened.flush()
            if durable:
                os.fsync(descriptor)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
