"""Which files the fake's backend refuses to start with."""

import struct
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
BYTES_PER_VALUE = {0: 4, 1: 2}


class Verdict(Enum):
    """`NO_GGUF` is to Lemonade a model that it has to download; `BROKEN` fails in llama-server."""

    GOOD = "good"
    BROKEN = "broken"
    NO_GGUF = "no_gguf"


def judge(path: Path) -> Verdict:
    """Read the header as llama.cpp does, in so far as it decides whether a model starts."""
    if not path.is_file():
        return Verdict.NO_GGUF
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            return Verdict.NO_GGUF
        head = BytesIO(file.read(1 << 24))
    try:
        return Verdict.GOOD if _end_of_data(head) <= size else Verdict.BROKEN
    except (struct.error, KeyError, ValueError, MemoryError, OverflowError):
        return Verdict.BROKEN


def _end_of_data(file: BinaryIO) -> int:
    version, tensors, entries = _unpack(file, "<IQQ")
    if version != 3 or tensors > 1 << 20 or entries > 1 << 20:
        raise ValueError
    for _ in range(entries):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        value = _value(file, kind)
        if key == b"general.architecture" and value != b"llama":
            raise ValueError
    end = 0
    for _ in range(tensors):
        _string(file)
        (rank,) = _unpack(file, "<I")
        dims = _unpack(file, f"<{rank}Q")
        kind, offset = _unpack(file, "<IQ")
        count = 1
        for dim in dims:
            count *= dim
        end = max(end, offset + count * BYTES_PER_VALUE.get(kind, 0))
    return -(-(file.tell() + 4) // 32) * 32 + end


def _value(file: BinaryIO, kind: int) -> bytes | None:
    if kind == 8:
        return _string(file)
    if kind != 9:
        _unpack(file, f"{SCALARS[kind]}s")
        return None
    of, count = _unpack(file, "<IQ")
    if count > 1 << 22:
        raise ValueError
    if of == 8:
        for _ in range(count):
            _string(file)
    else:
        _unpack(file, f"{SCALARS[of] * count}s")
    return None


def _string(file: BinaryIO) -> bytes:
    (length,) = _unpack(file, "<Q")
    if length > 1 << 20:
        raise ValueError
    return file.read(length)


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
