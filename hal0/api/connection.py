"""One connection to the API: how much may come before a request is heard, and for how long.

uvicorn bounds neither the size of a head nor the time that it takes, so who sends a byte now and
then could hold memory and a connection for ever. Here a head must be small and arrive in time, and
what is no HTTP is refused as a problem like everything else. A body is bounded by who reads it
(`json_body.py`). What still comes of it after the answer is thrown away for as long as a request
may take: a connection that is closed at once loses the answer to who is still sending.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hal0.api.problems import response_for
from hal0.api.request_ids import HEADER, kept_or_made
from hal0.errors import HeadTooLarge, NotHttp, RequestError, TooSlow

log = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 1 << 15
MAX_WAITING: Final = 8
"""So many requests of one connection may wait for the answer to an earlier one."""
CHUNK_COST: Final = 8
"""Bytes of a chunk's frame for each of its own that are taken for chunks, not for trailers."""
LINGER_S: Final = 2.0
"""How long who was too slow may take to read that."""
TOLD_EACH_S: Final = 60.0
"""How often it is told at most that connections are broken off: anyone could fill a log by it."""


class _Patient:
    """The transport of one request, whose answer may come before its end: then it closes later."""

    def __init__(self, connection: "Connection", cycle: RequestResponseCycle) -> None:
        self._connection = connection
        self._cycle = cycle
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        """Close the connection, or as soon as the rest of the request has come."""
        self._connection.close_behind(self._cycle)


class Connection(HttpToolsProtocol):
    """uvicorn's, with limits; it hears of heads and bodies from asyncio and from httptools."""

    limit_s: ClassVar[float]
    most: ClassVar[int]
    told_at: ClassVar[float] = -TOLD_EACH_S
    """When it was told last, by the loop's clock, that connections are broken off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unread: asyncio.TimerHandle | None = None
        self._at_work: RequestResponseCycle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = False
        self._beside_bodies = 0
        self._fault: RequestError | None = None
        self._is_refused = False
        self._is_draining = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request, unless there are too many who could send one."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._is_refused = True
            transport.abort()
            self._tell_of_crowd()
            return
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._clear_deadline()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those that are no body are few, or it is no request."""
        if self._is_refused:
            return
        self._beside_bodies += len(data)
        super().data_received(data)
        if self._beside_bodies > MAX_HEAD_BYTES and not self._is_refused:
            self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        """Expect the rest of a head, unless the answer before said that it was the last."""
        if self._is_draining:
            self.transport.close()
        super().on_message_begin()
        self._is_in_head = True
        self._set_deadline()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is none."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Leave the request to its handler; only so many may wait for it."""
        if len(self.pipeline) >= MAX_WAITING:
            self._fault = NotHttp(
                f"more than {MAX_WAITING} requests came before the first was answered"
            )
            raise self._fault
        sizes = (len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.url) + sum(sizes) > MAX_HEAD_BYTES:
            self._fault = _head_too_large()
            raise self._fault  # httptools stops, and uvicorn calls send_400_response
        coding = b", ".join(value for name, value in self.headers if name == b"transfer-encoding")
        if coding.strip().lower() not in (b"", b"chunked"):
            self._fault = NotHttp(
                f"the body is sent as {coding[:100].decode('latin-1')}; send it as it is, in "
                "chunks or with its length"
            )
            raise self._fault
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, _Patient(self, self.cycle))
        self._is_in_head = False
        self._clear_deadline()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._beside_bodies = max(0, self._beside_bodies - (1 + CHUNK_COST) * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        self._beside_bodies = 0
        super().on_message_complete()
        if self._is_draining:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Expect the rest of the body that nobody reads any more, or the next request."""
        super().on_response_complete()
        self._set_deadline()

    def close_behind(self, cycle: RequestResponseCycle) -> None:
        """Close behind an answer; first throw away what still comes of its request.

        A connection that is closed while bytes come in is reset, and the answer is lost with it.
        """
        if not cycle.more_body or not cycle.response_complete:
            self.transport.close()
            return
        self._is_draining = True
        self.transport.write_eof()  # `on_response_complete`, which comes next, sets the limit

    def send_400_response(self, msg: str) -> None:
        """Refuse what httptools does not understand."""
        self._refuse(self._fault or NotHttp("what came is no HTTP/1.1 request"))

    @property
    def _answering(self) -> RequestResponseCycle | None:
        """The request that a handler is at work on; later ones wait in the pipeline."""
        cycle = self._at_work
        return None if cycle is None or cycle.response_complete else cycle

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_of_crowd(self) -> None:
        kind, now = type(self), self.loop.time()
        if now - kind.told_at >= TOLD_EACH_S:
            kind.told_at = now
            log.warning("%d connections at once: further ones are broken off", self.most)

    def _set_deadline(self, seconds: float | None = None) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds or self.limit_s, self._end)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        """Close, unless a handler is at work: its answer comes first and sets a new deadline."""
        is_answering = self._answering is not None and not self._is_refused
        if is_answering or self.transport.is_closing():
            return
        if self._is_in_head and not self._is_refused:
            detail = f"the head did not arrive within {self.limit_s:g} s"
            self._refuse(TooSlow(detail, evidence={"limit_s": self.limit_s}))
        else:
            self.transport.close()
            limit_s = min(LINGER_S, self.limit_s) if self._is_refused else self.limit_s
            self._deadline = self.loop.call_later(limit_s, self.transport.abort)

    def pause_writing(self) -> None:
        """Give whoever does not read an answer so long to read some of it."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on: enough was read."""
        self._stop_watching()
        super().resume_writing()

    def _watch(self, unread_bytes: int) -> None:
        self._unread = self.loop.call_later(self.limit_s, self._look_again, unread_bytes)

    def _look_again(self, before_bytes: int) -> None:
        """Break the connection off if nothing was read since; `close` would wait for ever."""
        now_bytes = self.transport.get_write_buffer_size()
        if now_bytes >= before_bytes:
            self.transport.abort()
        else:
            self._watch(now_bytes)

    def _stop_watching(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _refuse(self, error: RequestError) -> None:
        """Answer, say that this was all, and hear nothing more."""
        self._is_refused = True
        if self._is_draining:
            self.transport.close()
            return
        self.pipeline.clear()
        if (cycle := self._answering) is not None:
            cycle.disconnected = True  # its handler hears of it as of a client that went away
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.close()
                return
        response = response_for(error, "")
        response.headers[HEADER] = kept_or_made(None)
        response.headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.write_eof()
        self._set_deadline(min(LINGER_S, self.limit_s) if isinstance(error, TooSlow) else None)


def within(seconds: float, most_at_once: int) -> type[Connection]:
    """Return the kind of connection whose requests must arrive within so many seconds.

    Beyond `most_at_once` of them, one that is made is broken off.
    """

    class Limited(Connection):
        limit_s = seconds
        most = most_at_once

    return Limited


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request line and headers are larger than {MAX_HEAD_BYTES} bytes, which no request "
        "needs",
        evidence={"limit_bytes": MAX_HEAD_BYTES},
    )
