"""Headers of GGUF files put together by hand, right or wrong, and a file that counts its reads."""

import io
import struct

from hal0.registry.gguf import GgufHeader, read_header

U8, U32, STRING, ARRAY, U64 = 0, 4, 8, 9, 10
F32 = 0


def length(value: int) -> bytes:
    """Return the length of a string or an array, whatever follows it."""
    return struct.pack("<Q", value)


def string(raw: bytes) -> bytes:
    """Return a string."""
    return length(len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    """Return a key with its value."""
    return string(name.encode()) + struct.pack("<I", kind) + value


def u32(name: str, value: int) -> bytes:
    """Return a key of type u32."""
    return key(name, U32, struct.pack("<I", value))


def array(kind: int, count: int) -> bytes:
    """Return the head of an array; its values follow."""
    return struct.pack("<IQ", kind, count)


def tensor(
    name: str = "t", dims: tuple[int, ...] = (8,), kind: int = F32, offset: int = 0
) -> bytes:
    """Return what a header says of one tensor."""
    head = string(name.encode()) + struct.pack("<I", len(dims))
    return head + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


def header(
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Return a header; `counts` are those of tensors and keys that it claims to have."""
    n_tensors, n_keys = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)
    return head + b"".join(keys) + b"".join(tensors)


def padded(head: bytes, data_bytes: int, alignment: int = 32) -> bytes:
    """Return a file of this header with so much data."""
    return head + bytes(-len(head) % alignment) + bytes(data_bytes)


def read(raw: bytes) -> GgufHeader:
    """Read the header of a file with this content."""
    return read_header(io.BytesIO(raw), len(raw))


class CountingFile(io.BytesIO):
    """A file that knows how often, and how much of it, was read."""

    read_bytes = 0
    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        raw = super().read(size)
        self.reads += 1
        self.read_bytes += len(raw)
        return raw
