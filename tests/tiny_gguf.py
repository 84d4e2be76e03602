"""What bytes make a real model small enough for a test: a llama GGUF of about 1 MB.

The same arguments give the same bytes on every machine, for the weights come from SHAKE-256. The
model talks nonsense, but llama.cpp loads it, tokenizes, samples and streams. Rows of the output
matrix that belong to control and byte tokens are zero: greedy output is readable pseudo-words and
never ends before `max_tokens`.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import shake_256
from pathlib import Path
from typing import Final, Literal

Broken = Literal["magic", "version", "truncate", "arch", "missing-tensor", "empty"]

ALIGNMENT: Final = 32
F32: Final = 0
F16: Final = 1
SPECIAL_TOKENS: Final = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
CHAT_TEMPLATE: Final = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class ValueType(IntEnum):
    """Type numbers of GGUF metadata values."""

    U16 = 2
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9


PACKED: Final = {
    ValueType.U16: "H",
    ValueType.U32: "I",
    ValueType.I32: "i",
    ValueType.F32: "f",
    ValueType.BOOL: "?",
}


class TokenType(IntEnum):
    """Kinds of a vocabulary entry, as llama.cpp numbers them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Size:
    """How big the model is; `vocab` counts the 259 special tokens too."""

    embd: int = 128
    layers: int = 2
    vocab: int = 1024
    ctx: int = 2048
    heads: int = 4


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array; `data` is not yet padded to the alignment."""

    name: str
    dims: tuple[int, ...]
    dtype: int
    data: bytes


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 0,
    broken: Broken | None = None,
    pad_bytes: int = 0,
    size: Size | None = None,
) -> Path:
    """Write a model to `path`, with `pad_bytes` sparse zero bytes behind it, and return `path`.

    Another seed gives another content of the same length. `broken` is what is wrong with it:
    `truncate` cuts off the last third, `arch` names an architecture that nobody has.
    """
    data = _break(tiny_gguf_bytes(seed, broken, size or Size()), broken)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.write(data)
        out.truncate(len(data) + pad_bytes)
    return path


def write_tiny_shards(
    folder: Path, stem: str, *, count: int = 3, seed: int = 0, layers: int = 2
) -> list[Path]:
    """Write one model as `<stem>-00001-of-0000N.gguf`…; the first shard holds the metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    size = Size(layers=layers)
    tensors = _tensors(seed, size)
    share = -(-len(tensors) // count)
    paths = []
    for number in range(count):
        meta = [
            _entry("split.no", ValueType.U16, number),
            _entry("split.count", ValueType.U16, count),
            _entry("split.tensors.count", ValueType.I32, len(tensors)),
        ]
        if number == 0:
            meta = _metadata("llama", size) + meta
        path = folder / f"{stem}-{number + 1:05d}-of-{count:05d}.gguf"
        path.write_bytes(_file(meta, tensors[number * share : (number + 1) * share]))
        paths.append(path)
    return paths


@lru_cache(maxsize=8)
def tiny_gguf_bytes(seed: int = 0, broken: Broken | None = None, size: Size | None = None) -> bytes:
    """Return the bytes of a model; of `broken` only what lies inside the format is applied."""
    size = size or Size()
    tensors = _tensors(seed, size)
    if broken == "missing-tensor":
        tensors = [tensor for tensor in tensors if tensor.name != "blk.0.ffn_down.weight"]
    return _file(_metadata("nosucharch" if broken == "arch" else "llama", size), tensors)


def _break(data: bytes, broken: Broken | None) -> bytes:
    if broken == "magic":
        return b"XXXX" + data[4:]
    if broken == "version":
        return data[:4] + struct.pack("<I", 99) + data[8:]
    if broken == "truncate":
        return data[: len(data) * 2 // 3]
    return b"" if broken == "empty" else data


def _file(meta: Sequence[bytes], tensors: Sequence[Tensor]) -> bytes:
    infos, blobs, offset = [], [], 0
    for tensor in tensors:
        rank = len(tensor.dims)
        infos.append(
            _string(tensor.name)
            + struct.pack(f"<I{rank}QIQ", rank, *tensor.dims, tensor.dtype, offset)
        )
        blob = _padded(tensor.data)
        blobs.append(blob)
        offset += len(blob)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    return _padded(head + b"".join(meta) + b"".join(infos)) + b"".join(blobs)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _entry(key: str, kind: ValueType, value: str | float) -> bytes:
    raw = (
        _string(str(value)) if kind is ValueType.STRING else struct.pack(f"<{PACKED[kind]}", value)
    )
    return _string(key) + struct.pack("<I", kind) + raw


def _strings(key: str, values: Sequence[str]) -> bytes:
    head = struct.pack("<IIQ", ValueType.ARRAY, ValueType.STRING, len(values))
    return _string(key) + head + b"".join(map(_string, values))


def _numbers(key: str, kind: ValueType, values: Sequence[float]) -> bytes:
    head = struct.pack("<IIQ", ValueType.ARRAY, kind, len(values))
    return _string(key) + head + struct.pack(f"<{len(values)}{PACKED[kind]}", *values)


def _metadata(arch: str, size: Size) -> list[bytes]:
    words = list(_pseudo_words(size.vocab - len(SPECIAL_TOKENS)))
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(words)
    scores = [0.0] * len(SPECIAL_TOKENS) + [-float(rank) for rank in range(len(words))]
    return [
        _entry("general.architecture", ValueType.STRING, arch),
        _entry("general.name", ValueType.STRING, "tiny"),
        _entry("general.file_type", ValueType.U32, 1),
        _entry(f"{arch}.context_length", ValueType.U32, size.ctx),
        _entry(f"{arch}.embedding_length", ValueType.U32, size.embd),
        _entry(f"{arch}.block_count", ValueType.U32, size.layers),
        _entry(f"{arch}.feed_forward_length", ValueType.U32, size.embd * 2),
        _entry(f"{arch}.attention.head_count", ValueType.U32, size.heads),
        _entry(f"{arch}.attention.head_count_kv", ValueType.U32, size.heads),
        _entry(f"{arch}.attention.layer_norm_rms_epsilon", ValueType.F32, 1e-5),
        _entry(f"{arch}.rope.dimension_count", ValueType.U32, size.embd // size.heads),
        _entry(f"{arch}.vocab_size", ValueType.U32, size.vocab),
        _entry("tokenizer.ggml.model", ValueType.STRING, "llama"),
        _strings("tokenizer.ggml.tokens", [*SPECIAL_TOKENS, *words]),
        _numbers("tokenizer.ggml.scores", ValueType.F32, scores),
        _numbers("tokenizer.ggml.token_type", ValueType.I32, kinds),
        _entry("tokenizer.ggml.unknown_token_id", ValueType.U32, 0),
        _entry("tokenizer.ggml.bos_token_id", ValueType.U32, 1),
        _entry("tokenizer.ggml.eos_token_id", ValueType.U32, 2),
        _entry("tokenizer.ggml.add_bos_token", ValueType.BOOL, True),
        _entry("tokenizer.chat_template", ValueType.STRING, CHAT_TEMPLATE),
    ]


def _pseudo_words(count: int) -> Iterator[str]:
    """Yield distinct words of two syllables, then of three."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    many = len(syllables)
    for number in range(count):
        last = number % many
        first = (number // many + 3 * number) % many
        third = syllables[number // many**2 - 1] if number >= many**2 else ""
        yield "\u2581" + syllables[last] + syllables[first] + third


def _matrices(size: Size) -> Iterable[tuple[str, int, int, int]]:
    """Yield name, rows, columns and how many of the first rows are zero."""
    embd, ff = size.embd, size.embd * 2
    yield "token_embd.weight", size.vocab, embd, 0
    for layer in range(size.layers):
        for part in ("q", "k", "v", "output"):
            yield f"blk.{layer}.attn_{part}.weight", embd, embd, 0
        yield f"blk.{layer}.ffn_gate.weight", ff, embd, 0
        yield f"blk.{layer}.ffn_up.weight", ff, embd, 0
        yield f"blk.{layer}.ffn_down.weight", embd, ff, 0
    yield "output.weight", size.vocab, embd, len(SPECIAL_TOKENS)


def _tensors(seed: int, size: Size) -> list[Tensor]:
    norms = [f"blk.{n}.{part}_norm.weight" for n in range(size.layers) for part in ("attn", "ffn")]
    ones = struct.pack("<f", 1.0) * size.embd
    return [
        Tensor(name, (columns, rows), F16, _noise(f"{seed}/{name}", rows, columns, zeros))
        for name, rows, columns, zeros in _matrices(size)
    ] + [Tensor(name, (size.embd,), F32, ones) for name in (*norms, "output_norm.weight")]


def _noise(key: str, rows: int, columns: int, zero_rows: int) -> bytes:
    """Return uniform float16 weights of variance 1/columns, drawn from SHAKE-256(key)."""
    amplitude = math.sqrt(3.0 / columns)
    table = [struct.pack("<e", (byte - 127.5) / 127.5 * amplitude) for byte in range(256)]
    raw = shake_256(key.encode()).digest(rows * columns)
    halves = bytearray(2 * len(raw))
    halves[0::2] = raw.translate(bytes(half[0] for half in table))
    halves[1::2] = raw.translate(bytes(half[1] for half in table))
    halves[: 2 * columns * zero_rows] = bytes(2 * columns * zero_rows)
    return bytes(halves)
