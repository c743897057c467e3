"""File locks that show whether a process lives."""

import os
import threading
from pathlib import Path

from forkjoin.core import file_lock


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    taken = file_lock.take(file)
    assert taken is not None
    assert file_lock.is_held(file)
    assert file_lock.take(file) is None
    os.close(taken)
    assert not file_lock.is_held(file)


def test_checking_a_missing_lock_does_not_create_it(tmp_path: Path) -> None:
    assert not file_lock.is_held(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()


def test_a_lock_is_not_inherited_by_child_processes(tmp_path: Path) -> None:
    taken = file_lock.take(tmp_path / "lock")
    assert taken is not None
    assert not os.get_inheritable(taken)
    os.close(taken)


def test_checking_a_lock_does_not_prevent_taking_it(tmp_path: Path) -> None:
    file, done = tmp_path / "lock", threading.Event()
    file.touch()

    def ask() -> None:
        while not done.is_set():
            file_lock.is_held(file)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            taken = file_lock.take(file)
            assert taken is not None
            os.close(taken)
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_concurrent_checks_do_not_mistake_each_other_for_a_holder(tmp_path: Path) -> None:
    file, answers = tmp_path / "lock", list[bool]()
    file.touch()
    threads = [
        threading.Thread(target=lambda: answers.extend(file_lock.is_held(file) for _ in range(200))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [False] * 800


def test_a_lock_file_is_private_to_its_owner(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        taken = file_lock.take(tmp_path / "lock")
    finally:
        os.umask(former)
    assert taken is not None
    os.close(taken)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
