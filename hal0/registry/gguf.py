"""What the header of a GGUF file says, and whether every tensor lies inside the file.

    magic "GGUF" | version u32 | tensor count u64 | key count u64
    keys:    name, type u32, value          (a string is its length u64, then its bytes)
    tensors: name, rank u32, dims u64 x rank, type u32, offset u64
    padding to the alignment, then the data that the offsets count from

The header is hostile until read; `bounded.py` holds every step against the bytes left in the file.
Fixed-size arrays and long strings are seeked over. The contents of tensors are left to the
checksum, missing or overlapping tensors to the engine. Source: ggml, docs/gguf.md and src/gguf.cpp.
"""

import math
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from hal0.registry.bounded import BoundedReader, not_a_gguf

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_RANK: Final = 4  # GGML_MAX_DIMS
MAX_NESTING: Final = 4
DEFAULT_ALIGNMENT: Final = 32
MAX_ELEMENTS: Final = 2**63 - 1  # ggml counts in int64
MAX_UNSIZED: Final = 16

U32: Final = 4
STRING: Final = 8
ARRAY: Final = 9
INTEGERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
VALUE_BYTES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
WANTED: Final = {
    "general.architecture": frozenset({STRING}),
    "general.name": frozenset({STRING}),
    "general.alignment": frozenset({U32}),
    "split.no": frozenset(INTEGERS),
    "split.count": frozenset(INTEGERS),
    "split.tensors.count": frozenset(INTEGERS),
}

# fmt: off
BLOCKS: Final = {
    1: {0: 4, 1: 2, 30: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8},  # F32 F16 BF16 I8 I16 I32 I64 F64
    32: {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 9: 36,  # Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q8_1
         20: 18, 39: 17},  # IQ4_NL MXFP4
    64: {40: 36},  # NVFP4
    128: {41: 18},  # Q1_0
    256: {10: 84, 11: 110, 12: 144, 13: 176, 14: 210, 15: 292,  # Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K
          16: 66, 17: 74, 22: 82, 18: 98, 21: 110,  # IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S
          19: 50, 29: 56, 23: 136, 34: 54, 35: 66},  # IQ1_S IQ1_M IQ4_XS TQ1_0 TQ2_0
}
# fmt: on
"""Elements of a block: ggml's type numbers with the bytes of one block."""

TENSOR_TYPES: Final = {
    kind: (block, size) for block, sizes in BLOCKS.items() for kind, size in sizes.items()
}
FOREIGN: Final = {
    b"lmgg": "a GGML file from before GGUF",
    b"fmgg": "a GGML file from before GGUF",
    b"tjgg": "a GGML file from before GGUF",
    b"PK\x03\x04": "a zip archive, perhaps PyTorch weights",
    b"vers": "perhaps a Git LFS pointer instead of the file",
    b"<!DO": "a web page",
    b"<!do": "a web page",
    b"<htm": "a web page",
}


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What hal0 keeps of a header; offsets count bytes from the start of the file.

    `end_offset` is where the tensor that reaches farthest ends; one of an unknown type counts as a
    single byte there, and its type number is in `unsized_types`, the first MAX_UNSIZED of them.
    `split_no` counts from 0.
    """

    version: int
    architecture: str | None
    name: str | None
    tensor_count: int
    data_offset: int
    end_offset: int
    split_no: int | None
    split_count: int | None
    split_tensor_count: int | None
    unsized_types: tuple[int, ...]


def read_header(file: BinaryIO, size_bytes: int) -> GgufHeader:
    """Read the header of a file of `size_bytes` and check that every tensor lies inside it.

    Raises NotAGguf when no length of file could make the header right, and Truncated when the
    magic is good and the file ends too early. Evidence: `{what, offset, expected, found}`.
    """
    reader = BoundedReader(file, size_bytes)
    version = _read_version(reader)
    tensor_count = reader.count("the tensor count", least_bytes=24)
    key_count = reader.count("the key count", least_bytes=13)
    keys = _Keys(reader, key_count)
    extents = _Extents(reader, tensor_count, keys.alignment())
    split_no, split_count = keys.split()
    return GgufHeader(
        version=version,
        architecture=keys.texts.get("general.architecture"),
        name=keys.texts.get("general.name"),
        tensor_count=tensor_count,
        data_offset=extents.data_offset,
        end_offset=extents.end_offset,
        split_no=split_no,
        split_count=split_count,
        split_tensor_count=keys.numbers.get("split.tensors.count"),
        unsized_types=tuple(sorted(extents.unsized_types)),
    )


def _read_version(reader: BoundedReader) -> int:
    magic = reader.peek(len(MAGIC))
    if magic != MAGIC:
        hint = FOREIGN.get(magic, "another format" if magic else "an empty file")
        raise not_a_gguf("the magic", 0, MAGIC.decode(), repr(magic)[1:], hint)
    reader.take(len(MAGIC), "the magic")
    version = reader.u32("the version")
    if version in VERSIONS:
        return version
    hint = "no version that hal0 knows"
    if version == 1:
        hint = "version 1, which llama.cpp dropped; convert the model again"
    elif version & 0xFFFF == 0 and version:
        hint = "a big-endian file; convert it with gguf-py's gguf_convert_endian.py"
    raise not_a_gguf("the version", 4, "2 or 3", version, hint)


class _Keys:
    """The few metadata keys that hal0 wants; everything else is skipped."""

    def __init__(self, reader: BoundedReader, count: int) -> None:
        self.texts: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        for index in range(count):
            key = reader.text(f"the name of key {index}")
            at, kind = reader.offset, reader.u32(f"the type of key {key}")
            if key not in WANTED:
                _skip_value(reader, kind, f"the value of key {key}", MAX_NESTING)
                continue
            if key in self._offsets:
                raise not_a_gguf(f"key {key}", at, "given once", "repeated", "ambiguous")
            if kind not in WANTED[key]:
                raise not_a_gguf(
                    f"the type of key {key}", at, sorted(WANTED[key]), kind, "another type"
                )
            self._offsets[key] = reader.offset
            self._keep(reader, key, kind)

    def _keep(self, reader: BoundedReader, key: str, kind: int) -> None:
        what = f"the value of key {key}"
        if kind == STRING:
            self.texts[key] = reader.text(what)
        else:
            raw = reader.take(VALUE_BYTES[kind], what)
            (self.numbers[key],) = struct.unpack(INTEGERS[kind], raw)

    def alignment(self) -> int:
        alignment = self.numbers.get("general.alignment", DEFAULT_ALIGNMENT)
        if alignment.bit_count() != 1:
            at = self._offsets["general.alignment"]
            raise not_a_gguf("general.alignment", at, "a power of two", alignment, "unusable")
        return alignment

    def split(self) -> tuple[int | None, int | None]:
        """Return which shard this is, from 0, and of how many."""
        no, count = self.numbers.get("split.no"), self.numbers.get("split.count")
        if count is not None and count > 1 and (no is None or not 0 <= no < count):
            at = self._offsets.get("split.no", self._offsets["split.count"])
            raise not_a_gguf("split.no", at, f"0 to {count - 1}", no, "no shard of this set")
        return no, count


def _skip_value(reader: BoundedReader, kind: int, what: str, nesting: int) -> None:
    if kind in VALUE_BYTES:
        reader.skip(VALUE_BYTES[kind], what)
    elif kind == STRING:
        reader.skip(reader.length(what), what)
    elif kind == ARRAY and nesting:
        _skip_array(reader, what, nesting - 1)
    else:
        hint = "nested too deep" if kind == ARRAY else "no such type"
        raise not_a_gguf(f"the type of {what}", reader.offset - 4, "0 to 12", kind, hint)


def _skip_array(reader: BoundedReader, what: str, nesting: int) -> None:
    kind = reader.u32(what)
    if kind in VALUE_BYTES:
        unit = VALUE_BYTES[kind]
        reader.skip(reader.length(what, unit) * unit, what)
    elif kind == STRING:
        reader.skip_strings(reader.length(what, 8), what)
    elif kind == ARRAY and nesting:
        for _ in range(reader.count(what, least_bytes=12)):
            _skip_array(reader, what, nesting - 1)
    else:
        _skip_value(reader, kind, what, 0)


class _Extents:
    """Where tensors end, of which only the farthest is kept."""

    def __init__(self, reader: BoundedReader, count: int, alignment: int) -> None:
        self.unsized_types: set[int] = set()
        farthest, end = "", 0
        for index in range(count):
            name = reader.text(f"the name of tensor {index}")
            tensor_end = self._read_tensor(reader, f"tensor {name}", alignment)
            if tensor_end >= end:
                farthest, end = name, tensor_end
        self.data_offset = self.end_offset = reader.offset
        if count:
            self.data_offset += -reader.offset % alignment
            self.end_offset = self.data_offset + end
            reader.skip(self.end_offset - reader.offset, f"the data of tensor {farthest}")

    def _read_tensor(self, reader: BoundedReader, what: str, alignment: int) -> int:
        """Return where the tensor ends, in bytes from the start of the data."""
        at, rank = reader.offset, reader.u32(what)
        if rank > MAX_RANK:
            raise not_a_gguf(f"the rank of {what}", at, f"at most {MAX_RANK}", rank, "damaged")
        raw = reader.take(8 * rank + 12, what)
        *dims, kind, offset = struct.unpack(f"<{rank}QIQ", raw)
        if offset % alignment:
            raise not_a_gguf(
                f"the offset of {what}", at, f"a multiple of {alignment}", offset, "damaged"
            )
        elements: int = math.prod(dims)
        if max((elements, *dims)) > MAX_ELEMENTS:
            raise not_a_gguf(f"the shape of {what}", at, "under 2^63 elements", dims, "damaged")
        if kind not in TENSOR_TYPES:
            if len(self.unsized_types) < MAX_UNSIZED:
                self.unsized_types.add(kind)
            return int(offset) + 1
        block, block_bytes = TENSOR_TYPES[kind]
        row = dims[0] if dims else 1
        if row % block:
            raise not_a_gguf(
                f"the row of {what}", at, f"a multiple of {block} elements", row, "damaged"
            )
        return int(offset) + elements // block * block_bytes
