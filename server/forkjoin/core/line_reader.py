"""Splitting of a byte stream into lines in bounded memory."""

from collections.abc import Iterator


class Lines:
    """A splitter that gets chunks and yields each complete line with its offset in the stream.

    A line that is longer than `limit` bytes is yielded as `None`. Its first `keep` bytes are in `beginning`.

    Attributes:
        offset: Offset of the incomplete line at the end of the stream. All bytes before it have been yielded.
        beginning: The first bytes of the last line that was yielded as `None`.
    """

    def __init__(self, limit: int, offset: int = 0, keep: int = 0) -> None:
        self.limit = limit
        self.offset = offset
        self.keep = keep
        self.beginning = b""
        self._line = bytearray()  # a list of pieces would take 40 bytes for each piece of one byte
        self._size = 0
        self._dropped = False

    @property
    def held(self) -> int:
        """Return the number of bytes held of the incomplete line."""
        return len(self._line)

    def drop(self) -> None:
        """Discard the incomplete line, and treat it as too long."""
        self._dropped = True
        self._line = bytearray()

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Yield the lines that end in `chunk`.

        The incomplete line at its end is kept once all lines have been consumed.
        """
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._keep(chunk[start:end])
            yield self._complete(1)
            start = end + 1
        self._keep(chunk[start:])

    @property
    def needed(self) -> int:
        """Return the offset of the first byte that may have to be read again.

        The bytes of the incomplete line must be kept on disk, unless the line is already too long.
        """
        return self.offset if self._size <= self.limit else self.offset + self._size

    def rest(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the incomplete line at the end of the stream, unless it is empty."""
        if self._size:
            yield self._complete(0)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self.limit and not self._dropped:
            self._line += part
        elif len(self._line) < self.keep:
            self._line += part[: self.keep - len(self._line)]
        else:
            del self._line[self.keep :]

    def _complete(self, ending: int) -> tuple[int, bytes | None]:
        whole = self._size <= self.limit and not self._dropped
        self.beginning = b"" if whole else bytes(self._line[: self.keep])
        found = self.offset, bytes(self._line) if whole else None
        self.offset += self._size + ending
        self._line.clear()
        self._size = 0
        self._dropped = False
        return found
