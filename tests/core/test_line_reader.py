"""Cutting a stream into lines."""

import tracemalloc

from forkjoin.core.line_reader import Lines
from hypothesis import given
from hypothesis import strategies as st

#: Few bytes, many line ends, and lines about as long as the limits.
STREAMS = st.lists(st.sampled_from([b"\n", b"a", b"\r", b"\x00", b"\xff\xfe", b"long" * 3])).map(b"".join)


def cut(lines: Lines, chunks: list[bytes]) -> list[tuple[int, bytes | None]]:
    return [found for chunk in chunks for found in lines.feed(chunk)]


@given(STREAMS, st.integers(0, 20), st.data())
def test_the_lines_of_a_stream_do_not_depend_on_its_chunks(stream: bytes, limit: int, data: st.DataObject) -> None:
    ends = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    chunks = [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]
    lines = Lines(limit)
    found = [*cut(lines, chunks), *lines.rest()]
    offset = 0
    for line in stream.split(b"\n"):
        if line or offset + len(line) < len(stream):
            assert found.pop(0) == (offset, line if len(line) <= limit else None)
        offset += len(line) + 1
    assert found == []


@given(STREAMS, st.integers(0, 20), st.integers(0, 1000))
def test_a_reader_that_continues_from_the_offset_gets_the_remaining_lines(
    stream: bytes, limit: int, split: int
) -> None:
    whole = Lines(limit)
    expected = [*whole.feed(stream), *whole.rest()]
    first = Lines(limit)
    given_before = cut(first, [stream[: min(split, len(stream))]])
    second = Lines(limit, first.offset)
    assert [*given_before, *second.feed(stream[first.offset :]), *second.rest()] == expected


def test_the_offset_is_that_of_the_first_line_not_yet_returned() -> None:
    lines = Lines(100)
    found = lines.feed(b"one\ntwo\nth")
    assert next(found) == (0, b"one")
    assert lines.offset == 4
    assert [*found] == [(4, b"two")]
    assert lines.offset == 8
    assert [*lines.rest()] == [(8, b"th")]
    assert lines.offset == 10


def test_the_text_after_the_last_line_end_is_returned_once() -> None:
    lines = Lines(100)
    assert [*lines.feed(b"rest")] == []
    assert [*lines.rest()] == [(0, b"rest")]
    assert [*lines.rest()] == []


def test_a_line_without_end_uses_no_more_memory_than_the_limit() -> None:
    lines = Lines(100_000)
    tracemalloc.start()
    for _ in range(300):
        assert [*lines.feed(b"x" * 65536)] == []
    now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 400_000
    assert now < 10_000  # nothing is kept of a line that is too long
    assert [*lines.feed(b"\nnext\n")] == [(0, None), (300 * 65536 + 1, b"next")]


def test_a_line_in_tiny_pieces_uses_little_more_memory_than_its_length() -> None:
    lines = Lines(200_000)
    piece = bytearray(b"xy")
    tracemalloc.start()
    for _ in range(90_000):
        assert [*lines.feed(bytes(piece))] == []
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000
    assert [*lines.feed(b"\n")] == [(0, b"xy" * 90_000)]


@given(STREAMS, st.integers(0, 20), st.integers(0, 30), st.integers(1, 9))
def test_the_beginning_of_a_line_that_is_too_long_is_kept(stream: bytes, limit: int, keep: int, step: int) -> None:
    lines = Lines(limit, keep=keep)
    beginnings = [
        lines.beginning
        for start in range(0, len(stream), step)
        for _, line in lines.feed(stream[start : start + step])
        if line is None
    ]
    assert beginnings == [line[:keep] for line in stream.split(b"\n")[:-1] if len(line) > limit]


def test_the_offset_moves_past_a_line_that_is_too_long() -> None:
    lines = Lines(4)
    assert [*lines.feed(b"one\ntwo")] == [(0, b"one")]
    assert lines.needed == 4
    assert [*lines.feed(b"long")] == []
    assert (lines.offset, lines.needed) == (4, 11)


def test_a_dropped_line_counts_as_too_long_and_the_next_line_is_whole() -> None:
    lines = Lines(100)
    assert [*lines.feed(b"half")] == []
    lines.drop()
    assert lines.held == 0
    assert [*lines.feed(b" sent\nnext\nla")] == [(0, None), (10, b"next")]
    assert lines.held == 2
