"""Names of files and refs, as messages show them."""

import os

from forkjoin.git.file_names import printable


def test_names_of_any_bytes_are_printable() -> None:
    assert printable(os.fsdecode(b"a\nb\xff.txt")) == "a\\nb\\xff.txt"
