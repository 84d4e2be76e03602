"""What the fake answers: a file under RFC 9110's rules for ranges, and a manner over that."""

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from hashlib import sha256

from tests.fakes.source.manner import Manner

FIRST_MODIFIED = 1_750_000_000  # 2025-06-15T15:06:40Z
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; the names of its headers are in small letters, `path` is unquoted."""

    method: str
    target: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class File:
    """A file with its validators; `etag` has its quotes."""

    content: bytes
    etag: str | None
    last_modified: str | None

    @classmethod
    def of(cls, content: bytes, version: int = 0) -> "File":
        """Make a file with validators that are right for these bytes."""
        return cls(
            content,
            f'"{sha256(content).hexdigest()[:32]}"',
            formatdate(FIRST_MODIFIED + version, usegmt=True),
        )

    def changed(self, version: int) -> "File":
        """Return the file after so many changes: as long as before, each byte another one."""
        if version == 0:
            return self
        table = bytes((byte + version) % 256 for byte in range(256))
        return File.of(self.content.translate(table), version)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers in order and the body, which a HEAD leaves out."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def text_answer(status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Make an answer of a line of text."""
    return Answer(status, {"Content-Type": "text/plain", **(headers or {})}, text.encode())


def file_answer(request: Request, file: File, manner: Manner) -> Answer:
    """Serve a file, or the part of it that is asked for, in this manner."""
    if manner.no_validator:
        file = replace(file, etag=None, last_modified=None)
    elif manner.weak_etag:
        file = replace(file, etag=f"W/{file.etag}", last_modified=None)
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
    headers |= {"ETag": file.etag} if file.etag else {}
    headers |= {"Last-Modified": file.last_modified} if file.last_modified else {}
    if manner.ignore_range:
        del headers["Accept-Ranges"]
        return Answer(200, headers, file.content)
    total = len(file.content)
    part = _part(request, file)
    if part is None:
        if manner.wrong_range != "unasked":
            return Answer(200, headers, file.content)
        part = range(total)
    if not part and manner.wrong_range is None:
        return Answer(416, headers | {"Content-Range": f"bytes */{total}"}, b"")
    return _partial(file.content, part, headers, manner)


def _part(request: Request, file: File) -> range | None:
    """Return the bytes that are asked for: None = the whole, empty = beyond the end."""
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if request.method != "GET" or found is None or found[0] == "bytes=-":
        return None
    condition = request.headers.get("if-range")
    if condition is not None and (
        condition.startswith("W/") or condition not in {file.etag, file.last_modified}
    ):
        return None
    total = len(file.content)
    if not found[1]:
        return range(max(0, total - int(found[2])), total)
    last = int(found[2]) if found[2] else total - 1
    return None if last < int(found[1]) and found[2] else range(int(found[1]), min(last + 1, total))


def _partial(content: bytes, part: range, headers: dict[str, str], manner: Manner) -> Answer:
    wrong, total = manner.wrong_range, len(content)
    first, stop = part.start, part.stop
    if wrong == "short":
        stop = first + (stop - first + 1) // 2
    if wrong == "offset":
        first = max(0, first - 1)
    shown = f"bytes {first}-{stop - 1}/{total}"
    body = content[first:stop]
    if wrong == "lie" and first > 0:
        body = content[first - 1 : stop - 1]
    elif wrong == "total":
        shown = f"bytes {first}-{stop - 1}/{total + 1}"
    elif wrong == "no_total":
        shown = f"bytes {first}-{stop - 1}/*"
    elif wrong == "garbage":
        shown = "bytes of the file"
    headers = headers | {"Content-Range": shown}
    if wrong == "multipart":
        headers["Content-Type"] = "multipart/byteranges; boundary=PART"
        del headers["Content-Range"]
        body = f"--PART\r\nContent-Range: {shown}\r\n\r\n".encode() + body + b"\r\n--PART--\r\n"
    elif wrong == "missing":
        del headers["Content-Range"]
    return Answer(206, headers, body)


def in_manner(answer: Answer, request: Request, manner: Manner) -> Answer:
    """Return what is sent in place of an answer: error, redirect, coding, length, headers."""
    status = manner.status
    if request.method == "HEAD" and manner.head_status is not None:
        status = manner.head_status
    if status is not None:
        answer = text_answer(status, "scripted\n")
    elif manner.redirect_to is not None:
        to = {"Location": manner.redirect_to}
        answer = text_answer(manner.redirect_status, "moved\n", to)
    headers, body = {"Date": formatdate(usegmt=True), **answer.headers}, answer.body
    if manner.encoding is not None:
        body = gzip.compress(body, mtime=0)
        headers["Content-Encoding"] = manner.encoding
    if manner.endless and manner.no_length is None:
        headers["Connection"] = "close"
    elif manner.no_length is not None:
        extra = {"chunked": ("Transfer-Encoding", "chunked"), "close": ("Connection", "close")}
        headers |= [extra[manner.no_length]]
    elif status != 204:
        headers.setdefault("Content-Length", str(max(0, len(body) + manner.wrong_length)))
    if manner.retry_after is not None:
        headers["Retry-After"] = manner.retry_after
    headers |= {f"X-Huge-{n}": "h" * 1000 for n in range(-(-manner.huge_headers // 1000))}
    for name, value in manner.headers.items():
        headers.pop(name, None)
        headers |= {} if value is None else {name: value}
    return Answer(answer.status, headers, body)
