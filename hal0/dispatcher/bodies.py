"""The model's name in a body of JSON, and the same body with another name put in its place.

Nothing else of it changes, and nothing else is decoded: a body costs hal0 its bytes, whatever is in
them. A name that is given twice, or spelled with escapes, could mean one model here and another one
at the engine, which would load that; it is refused.
"""

import re
from codecs import utf_8_decode
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol

from msgspec import UNSET, DecodeError, Raw, Struct, UnsetType
from msgspec.json import Decoder, encode

from hal0.errors import InvalidRequest, NotJson, NotJsonType

MAX_NAME: Final = 256
"""Characters of a model's name; those of hal0 have 64 at most."""
MAX_ESCAPED: Final = 12
"""Bytes that JSON may spell a character with."""
PIECE_BYTES: Final = 1 << 20
SEARCHED_BYTES: Final = 1 << 25
"""So much is read at most to find out which of several places is the name's."""
MAX_PLACES: Final = 10_000
_TYPES: Final = (b"", b"application/json", b"application/json; charset=utf-8")
_NAMED: Final = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*')


class _Read(Struct, gc=False):
    """What is looked at of a body."""

    model: Raw | UnsetType = UNSET
    stream: Raw | UnsetType = UNSET


_OBJECT: Final = Decoder(_Read)
_TEXT: Final = Decoder(str)


class Body(Protocol):
    """A body that was understood as far as a proxy must understand it."""

    @property
    def model(self) -> str:
        """Whom it is for, as the client says."""
        ...

    @property
    def is_stream(self) -> bool:
        """Whether it asks for an answer in pieces."""
        ...

    @property
    def content_type(self) -> str:
        """What it is to be sent as."""
        ...

    def renamed(self, model: str) -> bytes:
        """Return it with this name of the model in it."""
        ...


@dataclass(slots=True)  # frozen, one takes four times as long to make
class JsonBody:
    """A JSON object that names its model in the bytes from `begin` to `end`."""

    model: str
    is_stream: bool
    content: bytes
    begin: int
    end: int
    content_type: str = "application/json"

    def renamed(self, model: str) -> bytes:
        """Return the object with this name of the model."""
        return b"".join((self.content[: self.begin], encode(model), self.content[self.end :]))


def json_body(content: bytes, content_type: bytes) -> JsonBody:
    """Return the JSON object of a request.

    Raises NotJsonType, NotJson, and InvalidRequest when it names no model, or not clearly one.
    """
    kind = content_type.strip().lower()
    if kind not in _TYPES and not _is_json(kind):
        told = content_type[:100].decode("latin-1")
        raise NotJsonType(f"the body is sent as {told}; send JSON as application/json")
    _ensure_utf8(content)
    read = _read(content)
    name = b"" if read.model is UNSET else _short(read.model)
    model = checked_name(_text(name))
    begin = _place(content, name)
    is_stream = read.stream is not UNSET and _short(read.stream) == b"true"
    return JsonBody(model, is_stream, content, begin, begin + len(name))


def checked_name(name: object) -> str:
    """Return the name of a model if it can be one; raises InvalidRequest."""
    if isinstance(name, str) and 0 < len(name) <= MAX_NAME:
        return name
    raise InvalidRequest(
        "`model` must be the name of a slot, or of the model that a slot holds; GET /v1/models "
        "lists the slots",
        evidence={"field": "model"},
    )


def _is_json(kind: bytes) -> bool:
    name, _, parameter = kind.partition(b";")
    charset = parameter.replace(b" ", b"").replace(b'"', b"")
    return name.strip() == b"application/json" and charset in (b"", b"charset=utf-8")


def _ensure_utf8(content: bytes) -> None:
    """Raise NotJson for what is no text; msgspec looks only at what it decodes."""
    if content.isascii():
        return
    view, place = memoryview(content), 0
    while place < len(view):
        piece = view[place : place + PIECE_BYTES]
        try:
            place += utf_8_decode(piece, "strict", place + len(piece) == len(view))[1]
        except UnicodeDecodeError as exc:
            raise _not_json(f"byte {place + exc.start} is no UTF-8") from exc


def _read(content: bytes | bytearray) -> _Read:
    try:
        return _OBJECT.decode(content)
    except RecursionError as exc:
        raise _not_json("it is nested too deeply") from exc
    except DecodeError as exc:
        raise _not_json(str(exc) if content.strip() else "it is empty") from exc


def _short(value: Raw) -> bytes:
    """Return a value as it is written, b"" for one that is no name by its length alone."""
    view = memoryview(value)
    return bytes(view) if view.nbytes <= MAX_ESCAPED * MAX_NAME + len('""') else b""


def _text(value: bytes) -> str | None:
    try:
        return _TEXT.decode(value)
    except DecodeError:
        return None


def _place(content: bytes, name: bytes) -> int:
    """Return where the object names its model `name`, as it is written."""
    tries = 1 + SEARCHED_BYTES // len(content)
    for begin, key in islice(_places(content, name), tries):
        without = bytearray(content)
        without[key + 1] ^= 1  # of another name; the length stays
        if _read(without).model is UNSET:
            return begin
    raise InvalidRequest(
        "`model` must be given once, and written without escapes", evidence={"field": "model"}
    )


def _places(content: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    """Yield where any object names its model so, and where the key of that is."""
    for found in islice(_NAMED.finditer(content), MAX_PLACES):
        if content.startswith(name, found.end()):
            yield found.end(), found.start()


def _not_json(why: str) -> NotJson:
    return NotJson(f"the body is no JSON object: {why}; send one in UTF-8")
