"""What a test can tell the fake to do to a file: one `Manner` for the next so many requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Literal

WrongRange = Literal[
    "offset", "lie", "total", "no_total", "missing", "garbage", "multipart", "short", "unasked"
]
"""What is wrong with a 206. offset: it begins a byte before what was asked, and says so; lie: its
bytes are those before, and it says otherwise; total: of another total; no_total: of `*`; missing:
no Content-Range; garbage: one that cannot be read; multipart: multipart/byteranges; short: honest,
of half of what was asked; unasked: a 206 of the whole to a request without a Range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the fake answers; what is not set stays as it should be, so the fields combine.

    A count of body bytes is of this answer, not of the file.
    """

    times: int | None = None
    """For so many requests; None = for all."""
    method: str | None = None
    """Only for requests of this method; others pass this manner by."""
    when: Literal["whole", "resume"] | None = None
    """Only for requests without, or with, a Range; others pass this manner by."""

    # before the answer
    close_before_answer: bool = False
    stall_before_headers: bool = False
    """Until `Source.release()`, or the client goes."""
    delay_s: float = 0
    garbage: bytes | None = None
    """These bytes in place of an answer, and then the end."""

    # status and headers
    status: int | None = None
    """This status with a small body of text, for each method."""
    head_status: int | None = None
    """The same for HEAD alone, as 405."""
    retry_after: str | None = None
    redirect_to: str | None = None
    """The Location, word for word: absolute, relative, of any scheme."""
    redirect_status: int = 302
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Headers in place of, or beside, the right ones; None leaves one out."""
    huge_headers: int = 0
    """About so many bytes of headers more, in lines of 1000."""
    dribble_headers: bool = False
    """The status and the headers come byte by byte, one each 0.05 s."""
    no_validator: bool = False
    weak_etag: bool = False
    """The ETag is weak and there is no Last-Modified."""
    wrong_length: int = 0
    """Content-Length is so many bytes more (or less) than what comes; then the end."""
    no_length: Literal["chunked", "close"] | None = None
    """No Content-Length: the body comes in chunks, or ends with the connection."""
    encoding: Literal["gzip"] | None = None
    """Really compressed, and it says so, whatever was asked."""
    ignore_range: bool = False
    """200 and the whole to whoever asks for a part."""
    wrong_range: WrongRange | None = None

    # the body
    changes: bool = False
    """Each request but the first meets other bytes of the same length, with other validators."""
    corrupt_at: int | None = None
    """The byte at this offset of the file is flipped, under the same validators."""
    drop_after: int | None = None
    """So many body bytes, then the end of the connection."""
    drop_by: Literal["fin", "rst"] = "fin"
    stall_after: int | None = None
    """So many body bytes, then nothing until `Source.release()`, or the client goes."""
    hold: Event | None = None
    """The second half of the body waits for this event; with `hold_at`, all from there."""
    hold_at: int | None = None
    dribble: bool = False
    """A byte each 0.05 s."""
    slow: int | None = None
    """So many bytes a second."""
    endless: bool = False
    """The body begins again when it ends, without a length; to be combined with `slow`."""

    def is_for(self, method: str, is_resume: bool) -> bool:
        """Whether a request is one that this manner is meant for."""
        wanted = {None: is_resume, "whole": False, "resume": True}[self.when]
        return self.method in {None, method} and wanted == is_resume


PLAIN = Manner()
