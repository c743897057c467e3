"""What is wrong with the records and their disk, a line each, with what to do about it."""

import shutil
from pathlib import Path

from forkjoin.record.damage import set_aside_copies

#: A disk with less is soon too full to record anything.
_LEAST_FREE = 100 * 1024 * 1024


def find_trouble(file: Path) -> list[str]:
    """The trouble with the records at `file`. Blocks for a moment."""
    return [*tell_damage(file), *tell_space(file.parent)]


def tell_damage(file: Path) -> list[str]:
    return [
        f"the records were damaged and begun anew with all that could still be read; see that no agent is missing "
        f"(forkjoin ps --all), then remove {copy}"
        for copy in set_aside_copies(file)
    ]


def tell_space(folder: Path) -> list[str]:
    free = shutil.disk_usage(folder).free
    if free >= _LEAST_FREE:
        return []
    return [f"only {free // 1024 // 1024} MB are free on the disk of {folder}; free space there"]
