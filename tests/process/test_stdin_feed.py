"""A program's stdin, fed from a file that another process appends to."""

import fcntl
import os
import selectors
from pathlib import Path

import pytest
from forkjoin.process.stdin_feed import StdinFeed


def test_stdin_stays_open_until_the_data_being_written_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program, stdin = os.pipe2(os.O_NONBLOCK)
    with Path("input").open("wb") as written, selectors.DefaultSelector() as selector, os.fdopen(program, "rb") as read:
        feed = StdinFeed(stdin)
        fcntl.flock(written, fcntl.LOCK_EX)
        written.write(b"all of it\n")
        Path("input.end").touch()
        feed.copy(selector)  # while the file is locked
        assert feed.open
        written.flush()
        fcntl.flock(written, fcntl.LOCK_UN)
        feed.copy(selector)
        os.close(feed.source)
        assert not feed.open
        assert read.read() == b"all of it\n"
