"""What a GGUF header may say, and how a wrong one is refused."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hal0.errors import NotAGguf, Truncated
from hal0.registry.gguf import MAX_UNSIZED, read_header
from tests.gguf_bytes import (
    ARRAY,
    STRING,
    U8,
    U32,
    U64,
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
from tests.tiny_gguf import Size, tiny_gguf_bytes, write_tiny_shards

TINY = tiny_gguf_bytes(size=Size(embd=32, layers=1, vocab=300, heads=1))


def test_version_2_has_the_same_layout() -> None:
    assert read(padded(header((), (tensor(),), version=2), 32)).version == 2


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        (b"", "empty"),
        (b"GG", "another format"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"lmgg" + bytes(60), "before GGUF"),
        (header(version=1), "version 1"),
        (header(version=0), "no version"),
        (header(version=99), "no version"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    ],
)
def test_another_format_or_version_is_refused_with_a_hint(raw: bytes, hint: str) -> None:
    with pytest.raises(NotAGguf, match=hint) as caught:
        read(raw)
    assert set(caught.value.evidence) == {"what", "offset", "expected", "found"}


IMPOSSIBLE = {
    "tensor count": header(counts=(2**63, 0)),
    "key count": header(counts=(0, 2**63)),
    "length of a key": header((length(2**40) + bytes(99),)),
    "length of a string": header((key("a", STRING, length(2**62) + bytes(99)),)),
    "type of a value": header((key("a", 13, bytes(8)),)),
    "length of an array": header((key("a", ARRAY, array(U8, 2**62)),)),
    "type of an array": header((key("a", ARRAY, array(77, 0)),)),
    "length of a string in an array": header((key("a", ARRAY, array(STRING, 1) + length(2**63)),)),
    "arrays nested too deep": header((key("a", ARRAY, array(ARRAY, 1) * 9 + bytes(99)),)),
    "arrays nested 1000 deep": header((key("a", ARRAY, array(ARRAY, 1) * 1000 + bytes(99)),)),
    "alignment of 0": header((u32("general.alignment", 0),)),
    "alignment of 48": header((u32("general.alignment", 48),)),
    "alignment of 64 bits": header((key("general.alignment", U64, length(32)),)),
    "architecture as a number": header((key("general.architecture", U32, bytes(4)),)),
    "name given twice": header((key("general.name", STRING, string(b"a")),) * 2),
    "shard without a number": header((u32("split.count", 3),)),
    "shard 4 of 3": header((u32("split.no", 3), u32("split.count", 3))),
    "rank 5": padded(header((), (tensor(dims=(1, 1, 1, 1, 1)),)), 99),
    "rank 2^31": header((), (string(b"t") + struct.pack("<I", 2**31) + bytes(99),)),
    "2^63 elements": padded(header((), (tensor(dims=(2**63,)),)), 99),
    "2^64 elements of which none is there": padded(header((), (tensor(dims=(2**63, 0, 2)),)), 99),
    "offset beside the alignment": padded(header((), (tensor(offset=8),)), 99),
    "one number of a type in blocks": padded(header((), (tensor(kind=8, dims=()),)), 99),
    "row that is no multiple of a block": padded(header((), (tensor(kind=8, dims=(33,)),)), 99),
}


@pytest.mark.parametrize("raw", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_header_that_no_length_of_file_makes_right_is_no_gguf(raw: bytes) -> None:
    with pytest.raises(NotAGguf) as caught:
        read(raw)
    assert set(caught.value.evidence) == {"what", "offset", "expected", "found"}


def test_a_tensor_beyond_the_end_is_truncated_and_named() -> None:
    head = header((), (tensor("inside"), tensor("outside", dims=(8, 4), offset=32)))
    assert read(padded(head, 32 + 128)).end_offset == len(padded(head, 0)) + 160
    with pytest.raises(Truncated, match="tensor outside") as caught:
        read(padded(head, 32 + 127))
    assert caught.value.evidence["expected"] == caught.value.evidence["found"] + 1


@pytest.mark.parametrize(
    "raw",
    [
        padded(header((), (tensor(offset=2**64 - 32),)), 32),
        padded(header((), (tensor(offset=2**63), tensor(dims=(2**61,), offset=2**63))), 32),
        padded(header((u32("general.alignment", 2**31),), (tensor(),)), 32),
    ],
    ids=["offset beyond 64 bits", "extent beyond 64 bits", "padding to 2 GB"],
)
def test_no_sum_of_offset_and_size_wraps_around(raw: bytes) -> None:
    with pytest.raises(Truncated) as caught:
        read(raw)
    assert caught.value.evidence["expected"] >= 2**31


def test_a_name_may_be_empty_and_a_key_that_nobody_reads_repeated() -> None:
    keys = (key("", U8, b"\1"), key("", STRING, string(b"")), key("", ARRAY, array(U64, 0)))
    raw = padded(header(keys, (tensor(""), tensor("", dims=(), offset=32))), 36)
    assert read(raw).end_offset == len(raw)


def test_a_tensor_of_an_unknown_type_must_begin_inside_the_file_and_is_reported() -> None:
    head = header((), (tensor(), tensor("new", kind=4711, offset=32)))
    assert read(padded(head, 33)).unsized_types == (4711,)
    with pytest.raises(Truncated, match="tensor new"):
        read(padded(head, 32))


def test_of_many_unknown_types_some_are_reported() -> None:
    tensors = tuple(tensor(kind=1000 + number) for number in range(100))
    found = read(padded(header((), tensors), 1)).unsized_types
    assert found == tuple(range(1000, 1000 + MAX_UNSIZED))


def test_a_shard_knows_its_number_from_0_and_how_many_there_are(tmp_path: Path) -> None:
    paths = write_tiny_shards(tmp_path, "m", count=3)
    headers = [read(path.read_bytes()) for path in paths]
    assert [(h.split_no, h.split_count) for h in headers] == [(0, 3), (1, 3), (2, 3)]
    assert {h.split_tensor_count for h in headers} == {sum(h.tensor_count for h in headers)}


def test_a_header_without_tensors_ends_where_it_ends() -> None:
    raw = header((key("general.name", STRING, string(b"only a vocabulary")),))
    assert read(raw).end_offset == len(raw)


def test_names_are_made_printable_and_cut() -> None:
    name = b"\x1b[2J" + b"x" * 5000 + b"\xff"
    found = read(header((key("general.name", STRING, string(name)),))).name
    assert found is not None
    assert found.isprintable()
    assert len(found) == 256


@given(st.integers(min_value=0, max_value=len(TINY) - 1))
def test_any_truncation_of_a_good_file_is_refused(length: int) -> None:
    assert read(TINY).end_offset == len(TINY)
    with pytest.raises(Truncated if length >= 4 else NotAGguf):
        read(TINY[:length])


def test_a_file_that_is_cut_while_it_is_read_is_truncated() -> None:
    with pytest.raises(Truncated):
        read_header(io.BytesIO(TINY[:300]), len(TINY))
