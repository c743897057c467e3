"""The limits of all attempts together, where cgroups do not hold them: the one that takes most is ended.

A cgroup around all of them keeps their processors and their memory to a limit by itself; of their processes it can
only refuse the next, to whoever asks for it, so that these are looked after here in any case, and it refuses only what
comes too fast for that.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from forkjoin.attempt.hierarchy import Base
from forkjoin.attempt.limit import spell_bytes
from forkjoin.attempt.usage import Usage, of_tree
from forkjoin.model import TreeLimits

#: How often it is looked; a look at a hundred agents of five processes takes some 50 ms.
LOOK_EVERY_S = 1.0


def to_watch(in_all: TreeLimits, bases: Iterable[Base]) -> TreeLimits:
    """Those limits that no cgroup keeps."""
    is_held = any("memory" in base.controllers for base in bases)
    return TreeLimits(memory=None if is_held else in_all.memory, processes=in_all.processes)


def end_largest(shims: Mapping[Path, int], limits: TreeLimits) -> None:
    """Where attempts, whose folders and shims these are, are past a limit, leave word for the largest to end."""
    if any((folder / "over").exists() for folder in shims):
        return  # not before that one has ended
    if past := find_past(limits, {folder: of_tree(pid) for folder, pid in shims.items()}):
        folder, words = past
        (folder / "over").write_text(words, "utf-8")


def find_past(limits: TreeLimits, usages: Mapping[Path, Usage]) -> tuple[Path, str] | None:
    """The folder of the attempt to be ended, and by which limit, in words; none while they are within."""
    memory = sum(usage.memory for usage in usages.values())
    processes = sum(usage.processes for usage in usages.values())
    if limits.memory and memory > limits.memory:
        largest = max(usages, key=lambda folder: usages[folder].memory)
        own = spell_bytes(usages[largest].memory)
        return largest, f"by the memory limit of {spell_bytes(limits.memory)} of all agents together (its own: {own})"
    if limits.processes and processes > limits.processes:
        largest = max(usages, key=lambda folder: usages[folder].processes)
        limit = f"{limits.processes} processes and threads of all agents together"
        return largest, f"by the limit of {limit} (its own: {usages[largest].processes})"
    return None
