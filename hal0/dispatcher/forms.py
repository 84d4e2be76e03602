"""The model's name in a form with files, and the same form with another name put in its place.

Nothing else of it changes, so the engine reads the same bytes as hal0, by its own rules: whatever
two parsers may read differently is refused, or a form could name one model here and another there.
"""

import re
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from hal0.dispatcher.bodies import checked_name
from hal0.errors import InvalidRequest, NotJsonType

_TYPE: Final = re.compile(
    rb"multipart/form-data\s*;\s*boundary=(?:\"([ -!#-\[\]-~]{1,70})\"|([^\s\";,]{1,70}))",
    re.IGNORECASE,
)
_VALUE: Final = rb"(?:\"(?:[^\"\\\r\n]|\\.)*\"|[^\s\";]+)"
_PARAMETER: Final = re.compile(rb"\s*;\s*(name|filename|filename\*)=(" + _VALUE + rb")")
_DISPOSITION: Final = re.compile(
    rb"form-data(?:\s*;\s*(?:name|filename|filename\*)=" + _VALUE + rb")+\s*"
)
MAX_PARTS: Final = 200
"""It is with parts that reading a form takes time, and not with the bytes in them."""


@dataclass(slots=True)
class _Part:
    """Where a part's content lies, and what is said of it."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    begin: int = 0
    end: int = 0


class _Reader:
    """Notes the parts of a form that the parser finds, as places in its bytes."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.is_whole = False
        self._header = [b"", b""]

    def on_part_begin(self) -> None:
        self.parts.append(_Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header[0] += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1] += data[start:end]

    def on_header_end(self) -> None:
        name, value = self._header
        self.parts[-1].headers.append((name.lower(), value.strip()))
        self._header = [b"", b""]

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        part.begin = part.begin or start
        part.end = end

    def on_end(self) -> None:
        self.is_whole = True


@dataclass(frozen=True, slots=True)
class FormBody:
    """A form that names its model in the bytes from `begin` to `end`."""

    model: str
    is_stream: bool
    content_type: str
    content: bytes
    begin: int
    end: int

    def renamed(self, model: str) -> bytes:
        """Return the form with this name of the model."""
        return b"".join((self.content[: self.begin], model.encode(), self.content[self.end :]))


def form_body(content: bytes, content_type: bytes) -> FormBody:
    """Return the form of a request.

    Raises NotJsonType for another type, InvalidRequest for what is no form, or is one that engines
    may read in several ways, and for one that names no model, or two.
    """
    found = _TYPE.fullmatch(content_type.strip())
    if found is None:
        told = content_type[:100].decode("latin-1")
        raise NotJsonType(
            f"the body is sent as {told or 'nothing'}; send multipart/form-data; boundary=…"
        )
    boundary: bytes = found[1] or found[2]
    by_name: dict[bytes, list[_Part]] = {}
    for part in _parts(content, boundary):
        name, is_file = _told_of(part)
        if is_file and name == b"model":
            raise _refused("`model` is a file")
        by_name.setdefault(name, []).append(part)
    named = by_name.get(b"model", [])
    if len(named) > 1:
        raise _refused("`model` is given twice")
    part = named[0] if named else _Part()
    if {name for name, _ in part.headers} - {b"content-disposition", b"content-type"}:
        raise _refused("`model` has headers of its own")
    try:
        model = content[part.begin : part.end].decode()
    except UnicodeDecodeError as exc:
        raise _refused("`model` is no UTF-8") from exc
    streams = [content[part.begin : part.end] for part in by_name.get(b"stream", [])]
    return FormBody(
        checked_name(model),
        streams[-1:] == [b"true"],
        content_type.decode("latin-1"),
        content,
        part.begin,
        part.end,
    )


def _parts(content: bytes, boundary: bytes) -> list[_Part]:
    """Return all parts; what lies before or behind them would be for another parser to see."""
    line = b"--" + boundary
    count = content.count(line)
    if count > MAX_PARTS + 1:
        raise _refused(f"it has more than {MAX_PARTS} parts")
    if not content.startswith(line + b"\r\n"):
        raise _refused("it does not begin with its boundary")
    reader = _Reader()
    names = ("part_begin", "header_field", "header_value", "header_end", "part_data", "end")
    callbacks = {f"on_{name}": getattr(reader, f"on_{name}") for name in names}
    try:
        MultipartParser(boundary, callbacks).write(content)  # type: ignore[arg-type]
    except FormParserError as exc:
        raise _refused(str(exc)) from exc
    if not reader.is_whole or not content.endswith((line + b"--", line + b"--\r\n")):
        raise _refused("it does not end with its boundary")
    if count != len(reader.parts) + 1:
        raise _refused("its boundary stands where no part begins")
    return reader.parts


def _told_of(part: _Part) -> tuple[bytes, bool]:
    """Return how a part is called, and whether it is a file.

    Raises InvalidRequest unless every parser reads the same.
    """
    said = [value for name, value in part.headers if name == b"content-disposition"]
    if len(said) != 1 or not _DISPOSITION.fullmatch(said[0]):
        raise _refused("a part needs one header `Content-Disposition: form-data; name=…`")
    parameters = _PARAMETER.findall(said[0])
    given = dict(parameters)
    if len(given) < len(parameters) or b"name" not in given:
        raise _refused("a part has one name")
    name: bytes = given[b"name"]
    bare = name[1:-1] if name.startswith(b'"') else name
    if b"\\" in bare:
        raise _refused("the name of a part has a backslash in it")
    return bare, len(given) > 1


def _refused(why: str) -> InvalidRequest:
    return InvalidRequest(f"the body is no form that can be passed on: {why}")
