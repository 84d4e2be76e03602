"""How far a header that nobody has checked may lead its reader: a forward walk within bounds.

No count or length is believed before the bytes that it needs are known to be in the file, and the
whole walk reads at most `MAX_READ_BYTES` and meets at most `MAX_ENTRIES`: a hostile file costs a
second of time and a chunk of memory. What the fields mean is left to `gguf.py`.
"""

import struct
from typing import BinaryIO, Final

from hal0.errors import NotAGguf, Truncated

MAX_LENGTH: Final = 2**30  # of a string or an array; gguf.cpp has the same
MAX_ENTRIES: Final = 2**16  # keys, tensors and nested arrays; real files have some thousands
MAX_READ_BYTES: Final = 64 * 2**20  # 500,000 merges with their tokens are about 15 MB
MAX_TEXT_BYTES: Final = 256  # of a name that is kept; what is longer is cut
CHUNK_BYTES: Final = 256 * 1024
FIRST_CHUNK_BYTES: Final = 4096  # after a seek; doubles while the walk reads on

_AT_MOST_LENGTH: Final = f"at most {MAX_LENGTH}"
_DAMAGED: Final = "the header is damaged"
_LENGTH: Final = struct.Struct("<Q")


def not_a_gguf(what: str, offset: int, expected: object, found: object, hint: str) -> NotAGguf:
    """Build the error that says what was expected and found at which byte."""
    return NotAGguf(
        f"{what} at byte {offset} is {found}, not {expected}: {hint}",
        evidence=_evidence(what, offset, expected, found),
    )


def _evidence(what: str, offset: int, expected: object, found: object) -> dict[str, object]:
    return {"what": what, "offset": offset, "expected": expected, "found": found}


class BoundedReader:
    """Goes forward over the file in chunks; every step is checked against the bytes left.

    `what` names the field for a message. Every method raises Truncated when the file ends first,
    and NotAGguf when a number exceeds what any real file needs.
    """

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._size = size_bytes
        self._buffer = b""
        self._start = 0  # offset of the buffer in the file
        self._pos = 0  # in the buffer, or beyond it after a skip
        self._chunk_bytes = FIRST_CHUNK_BYTES
        self._read_bytes = 0
        self._entries = 0

    @property
    def offset(self) -> int:
        """Where in the file the next byte comes from."""
        return self._start + self._pos

    def peek(self, count: int) -> bytes:
        """Return up to `count` bytes without moving."""
        self._fill(0)
        return self._buffer[self._pos : self._pos + count]

    def take(self, count: int, what: str) -> bytes:
        """Read `count` bytes, few enough to hold in memory."""
        self.need(count, what)
        if self._pos + count > len(self._buffer):
            self._fill(count)
        raw = self._buffer[self._pos : self._pos + count]
        self._pos += count
        return raw

    def u32(self, what: str) -> int:
        """Read four bytes, little-endian."""
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        """Read eight bytes, little-endian."""
        return int.from_bytes(self.take(8, what), "little")

    def count(self, what: str, least_bytes: int) -> int:
        """Read how many entries follow, of at least `least_bytes` each."""
        at, count = self.offset, self.u64(what)
        self._entries += count
        if self._entries > MAX_ENTRIES:
            raise not_a_gguf(what, at, f"at most {MAX_ENTRIES}", count, _DAMAGED)
        self.need(count * least_bytes, what)
        return count

    def length(self, what: str, unit_bytes: int = 1) -> int:
        """Read the length of a string or an array whose units follow."""
        at, length = self.offset, self.u64(what)
        if length > MAX_LENGTH:
            raise not_a_gguf(what, at, _AT_MOST_LENGTH, length, _DAMAGED)
        self.need(length * unit_bytes, what)
        return length

    def text(self, what: str) -> str:
        """Read a string of which the first MAX_TEXT_BYTES are of interest, made printable."""
        length = self.length(what)
        kept = min(length, MAX_TEXT_BYTES)
        raw = self.take(kept, what)
        self._pos += length - kept
        # It ends up in messages on a terminal: no control characters from a stranger's file.
        text = raw.decode("utf-8", errors="replace")
        if text.isprintable():
            return text
        return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)

    def skip(self, count: int, what: str) -> None:
        """Step over `count` bytes without reading them."""
        self.need(count, what)
        self._pos += count

    def skip_strings(self, count: int, what: str) -> None:
        """Walk over `count` strings; a vocabulary has hundreds of thousands."""
        unpack, length = _LENGTH.unpack_from, 0
        while count:
            self.need(8, what)
            if self._pos + 8 > len(self._buffer):
                self._fill(8)
            buffer, pos, last = self._buffer, self._pos, len(self._buffer) - 8
            while count and pos <= last:
                (length,) = unpack(buffer, pos)
                pos += 8 + length
                count -= 1
            self._pos = pos - length
            if length > MAX_LENGTH:
                raise not_a_gguf(what, self.offset - 8, _AT_MOST_LENGTH, length, _DAMAGED)
            self.skip(length, what)

    def need(self, count: int, what: str) -> None:
        """Raise Truncated unless `count` more bytes are in the file."""
        end = self.offset + count
        if end > self._size:
            raise Truncated(
                f"the file ends inside {what}: {end} bytes are needed, {self._size} are there",
                evidence=_evidence(what, self.offset, end, self._size),
            )

    def _fill(self, count: int) -> None:
        """Put the next chunk, of at least `count` bytes, into the buffer."""
        has_jumped = self._pos > len(self._buffer)
        self._chunk_bytes = (
            FIRST_CHUNK_BYTES if has_jumped else min(2 * self._chunk_bytes, CHUNK_BYTES)
        )
        self._start, self._pos = self.offset, 0
        self._file.seek(self._start)
        self._buffer = self._file.read(min(max(self._chunk_bytes, count), self._size - self._start))
        self._read_bytes += len(self._buffer)
        if self._read_bytes > MAX_READ_BYTES:
            raise not_a_gguf(
                "the header", 0, f"at most {MAX_READ_BYTES} bytes", "more", "it does not end"
            )
        if len(self._buffer) < count:
            self._size = self._start + len(self._buffer)  # it was cut while we read
            self.need(count, "the header")
