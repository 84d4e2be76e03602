"""What a damaged or hostile header costs: few bytes read, little memory, only our own errors.

A loop would show in the reads that a file counts, not in time, which a slow machine stretches.
"""

import json
import tracemalloc
from contextlib import suppress
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from hal0.errors import NotAGguf, PreloadError, Truncated
from hal0.registry.bounded import (
    CHUNK_BYTES,
    FIRST_CHUNK_BYTES,
    MAX_ENTRIES,
    MAX_READ_BYTES,
)
from hal0.registry.gguf import MAX_UNSIZED, TENSOR_TYPES, WANTED, GgufHeader, read_header
from tests.gguf_bytes import (
    ARRAY,
    STRING,
    U8,
    U64,
    CountingFile,
    array,
    header,
    key,
    length,
    padded,
    read,
    string,
    tensor,
    u32,
)
from tests.tiny_gguf import Size, tiny_gguf_bytes

MEMORY_BYTES: Final = 4 * 2**20
MESSAGE_CHARS: Final = 2000
TINY: Final = tiny_gguf_bytes(size=Size(embd=32, layers=1, vocab=300, heads=1))
SHARD: Final = padded(
    header((u32("split.no", 1), u32("split.count", 3)), (tensor("a"), tensor("b", offset=32))), 64
)
WIDE: Final = padded(
    header(
        (
            u32("general.alignment", 64),
            key("general.name", STRING, string("ü".encode() * 9)),
            key("a", ARRAY, array(ARRAY, 2) + (array(STRING, 1) + string(b"x")) * 2),
        ),
        (tensor("q", (256, 2), 12), tensor("new", (7,), 4711, 320)),
        version=2,
    ),
    400,
    64,
)
GOOD: Final = (TINY, SHARD, WIDE)
EDGES: Final = (0, 1, 2, 8, 31, 32, 255, 2**12, 2**16, 2**30, 2**31, 2**32, 2**62, 2**63, 2**64)


def survives(raw: bytes, size_bytes: int | None = None) -> None:
    """Read a file, which may be shorter than it is said to be, and check what that took."""
    size_bytes = len(raw) if size_bytes is None else size_bytes
    file, refusal = CountingFile(raw), None
    tracemalloc.start()
    try:
        is_sound(read_header(file, size_bytes), size_bytes)
    except (NotAGguf, Truncated) as error:
        refusal = error
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert file.read_bytes <= min(2 * len(raw), MAX_READ_BYTES) + CHUNK_BYTES
    assert file.reads <= file.read_bytes // FIRST_CHUNK_BYTES + 2
    if refusal is not None:
        is_tellable(refusal)


def is_tellable(refusal: PreloadError) -> None:
    """Check that a refusal fits into a row and onto a terminal, whatever the file said."""
    assert set(refusal.evidence) == {"what", "offset", "expected", "found"}
    assert json.dumps(refusal.as_row())
    assert refusal.detail.isprintable()
    assert len(refusal.detail) < MESSAGE_CHARS


def is_sound(found: GgufHeader, size_bytes: int) -> None:
    """Check that a header that was accepted promises nothing that is not in the file."""
    assert found.end_offset <= size_bytes
    assert found.tensor_count <= MAX_ENTRIES
    assert len(found.unsized_types) <= MAX_UNSIZED
    if (found.split_count or 1) > 1:
        assert found.split_no in range(found.split_count or 0)


# -- what is written there -------------------------------------------------------------------------

numbers = st.sampled_from(EDGES).flatmap(
    lambda edge: st.integers(-2, 2).map(lambda by: min(max(edge + by, 0), 2**64 - 1))
)
small = numbers.map(lambda number: number % 2**32)
names = st.sampled_from(sorted(WANTED)) | st.text(max_size=9)
blobs = st.binary(max_size=40)
kinds = st.integers(0, 13) | small


@st.composite
def values(draw: st.DrawFn) -> tuple[int, bytes]:
    """A type and a value: of this type, or of none."""
    kind = draw(kinds)
    if kind == STRING:
        return kind, draw(blobs.map(string) | numbers.map(length))
    if kind != ARRAY:
        return kind, draw(st.binary(min_size=1, max_size=8))
    nested = array(ARRAY, draw(numbers)) if draw(st.booleans()) else array(ARRAY, 1)
    head = nested * draw(st.integers(0, 5) | st.just(1000))
    of, count = draw(kinds), draw(st.integers(0, 5) | numbers)
    return kind, head + array(of, count) + draw(blobs)


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    """A tensor whose rank, shape, type and offset may be anything."""
    dims = tuple(draw(st.lists(numbers | st.integers(0, 64), max_size=5)))
    rank = draw(st.just(len(dims)) | small)
    kind = draw(st.sampled_from(sorted(TENSOR_TYPES)) | small)
    raw = tensor(draw(names), dims, kind, draw(numbers | st.just(32)))
    at = raw.index(len(dims).to_bytes(4, "little"), 8)
    return raw[:at] + rank.to_bytes(4, "little") + raw[at + 4 :] if draw(st.booleans()) else raw


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header whose fields are there, in their order, and may each be hostile."""
    pairs = draw(st.lists(st.tuples(names, values()), max_size=5))
    keys = tuple(key(name, kind, value) for name, (kind, value) in pairs)
    listed = tuple(draw(st.lists(tensors(), max_size=4)))
    counts = draw(st.none() | st.tuples(numbers, numbers))
    head = header(keys, listed, version=draw(st.sampled_from([2, 3])), counts=counts)
    return padded(head, draw(st.integers(0, 600)))


def wounded(raw: bytes, how: str, at: int, count: int, patch: bytes) -> bytes:
    """Do one kind of damage at a byte."""
    at %= len(raw) + 1
    match how:
        case "flip":
            return raw[:at] + bytes(byte ^ 1 for byte in raw[at : at + 1]) + raw[at + 1 :]
        case "write":
            return raw[:at] + patch + raw[at + len(patch) :]
        case "insert":
            return raw[:at] + patch + raw[at:]
        case "again":
            return raw[: at + count] + raw[at:]
        case "cut":
            return raw[:at] + raw[at + count :]
    return raw[:at]


wounds = st.tuples(
    st.sampled_from(["flip", "write", "write", "insert", "again", "cut", "end"]),
    st.integers(0, 400) | st.integers(0, len(TINY)),
    st.integers(1, 64),
    blobs | numbers.map(length),
)


@settings(max_examples=200)
@given(st.binary(max_size=5000))
def test_random_bytes_cost_little_and_raise_only_our_errors(raw: bytes) -> None:
    survives(raw)


@settings(max_examples=300)
@given(st.sampled_from([2, 3]), st.binary(max_size=400), st.integers(0, 2**50))
def test_random_bytes_behind_a_good_magic_do_too(version: int, tail: bytes, more: int) -> None:
    raw = header(version=version)[:8] + tail
    survives(raw)
    survives(raw, len(raw) + more)


@settings(max_examples=400)
@given(headers())
def test_a_header_of_hostile_fields_does_too(raw: bytes) -> None:
    survives(raw)


@settings(max_examples=400)
@given(st.sampled_from(GOOD), st.lists(wounds, min_size=1, max_size=4))
def test_a_damaged_file_does_too(raw: bytes, found: list[tuple[str, int, int, bytes]]) -> None:
    for how, at, count, patch in found:
        raw = wounded(raw, how, at, count, patch)
    survives(raw)


def test_the_good_files_are_good_before_they_are_damaged() -> None:
    assert [read(raw).end_offset <= len(raw) for raw in GOOD] == [True] * 3
    assert read(WIDE).unsized_types == (4711,)


# -- as much of it as may be -----------------------------------------------------------------------


def hostile_headers(size_bytes: int, many: int) -> dict[str, bytes]:
    zeros = bytes(size_bytes)
    return {
        "empty strings": header((key("a", ARRAY, array(STRING, len(zeros) // 8)),)) + zeros,
        "long strings": header((key("a", ARRAY, array(STRING, 500)),))
        + string(bytes(CHUNK_BYTES)) * 500,
        "keys": header((key("", U8, b"\0"),) * many, counts=(0, many)),
        "one entry too many": header(counts=(MAX_ENTRIES, 1)) + zeros,
        "nested arrays": header((key("a", ARRAY, array(ARRAY, many)),)) + array(U8, 0) * many,
        "a long string": header((key("a", STRING, length(size_bytes)),)) + zeros,
        "unknown types": padded(header((), tuple(tensor(kind=1000 + n) for n in range(many))), 1),
        "control characters": header((key("\1" * 230, U8, b"\0"),) * many),
        "a long array": header((key("a", ARRAY, array(U64, size_bytes // 8)),)) + zeros,
    }


def test_a_hostile_header_costs_bounded_memory() -> None:
    for name, raw in hostile_headers(8 * 2**20, 5_000).items():
        file = CountingFile(raw)
        tracemalloc.start()
        with suppress(NotAGguf, Truncated):
            read_header(file, len(raw))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * 2**20, name


def test_a_hostile_header_is_not_read_for_ever() -> None:
    for name, raw in hostile_headers(MAX_READ_BYTES + 2**20, MAX_ENTRIES - 1).items():
        file = CountingFile(raw)
        with suppress(NotAGguf, Truncated):
            read_header(file, len(raw))
        assert file.read_bytes <= MAX_READ_BYTES + CHUNK_BYTES, name


def test_long_strings_and_arrays_are_seeked_over() -> None:
    headers = hostile_headers(64 * 2**20, 1)
    for name in ("long strings", "a long string", "a long array"):
        file = CountingFile(raw := headers[name])
        read_header(file, len(raw))
        assert file.read_bytes < len(raw) // 20, name
