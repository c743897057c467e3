"""Cutting a stream of bytes into lines, in bounded memory whatever comes."""

from collections.abc import Iterator


class Lines:
    """Feed it chunks; it gives each whole line with the offset at which that line began.

    A line longer than `limit` is given as None, once, when it ends; of its bytes only the first `keep` are kept.

    Attributes:
        offset: Where the line begins that is not complete yet: all before it has been given.
        beginning: Of the line that was last given as None, its first bytes.
    """

    def __init__(self, limit: int, offset: int = 0, keep: int = 0) -> None:
        self.limit = limit
        self.offset = offset
        self.keep = keep
        self.beginning = b""
        self._line = bytearray()  # not a list of pieces: one of a single byte would take forty
        self._size = 0
        self._dropped = False

    @property
    def held(self) -> int:
        """Return the number of bytes held of the incomplete line."""
        return len(self._line)

    def drop(self) -> None:
        """Treat the incomplete line as too long."""
        self._dropped = True
        self._line = bytearray()

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that end in `chunk`; what follows them is kept once these have all been taken."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._keep(chunk[start:end])
            yield self._complete(1)
            start = end + 1
        self._keep(chunk[start:])

    @property
    def needed(self) -> int:
        """Where what is still needed begins: of a line that is too long already that is nothing."""
        return self.offset if self._size <= self.limit else self.offset + self._size

    def rest(self) -> Iterator[tuple[int, bytes | None]]:
        """What came after the last line end, if anything did."""
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
