"""Atomic replacement of files."""

import os
import stat
from pathlib import Path

import pytest
from forkjoin.core.atomic_write import write_atomically


def test_a_file_is_created_with_exactly_the_given_permissions(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"new", mode=0o664)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o664


def test_a_symlink_is_replaced_and_its_target_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_text() == "old"
    assert not (tmp_path / "link").is_symlink()


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError

    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file", b"new", durable=True)
    assert os.listdir(folder) == ["file"]
    assert (folder / "file").read_text() == "old"
