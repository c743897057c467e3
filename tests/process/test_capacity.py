"""Memory capacity within the limits of a container's cgroups."""

import math
from pathlib import Path

import pytest
from forkjoin.process import capacity, cgroup_root


def pretend_cgroup(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this process is in the cgroup with this folder."""

    def folders(process: str) -> dict[str, str]:
        return {"": str(folder)} if process == "self" else {}

    monkeypatch.setattr(cgroup_root, "cgroups_of", folders)


@pytest.mark.parametrize(
    ("limit", "left"),
    [("max", math.inf), ("1000", 1000 - 900 + 300 + 50), ("500", 0)],
)
def test_cached_files_count_as_free_memory_of_a_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, left: float
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 550\ninactive_file 300\nactive_file 50\n")
    pretend_cgroup(tmp_path, monkeypatch)
    assert capacity._memory_bounds("self") == (float("inf") if limit == "max" else int(limit), left)


def test_the_smallest_limit_of_the_cgroups_around_a_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder, limit in ((tmp_path, 1000), (inner, 2000)):
        (folder / "cgroup.procs").touch()
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("100\n")
    pretend_cgroup(inner, monkeypatch)
    assert capacity._memory_bounds("self") == (1000, 900)
    assert capacity.find_memory() == 1000
