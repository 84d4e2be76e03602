"""One connection to the API: how much may come before a request is heard, and for how long.

uvicorn bounds neither the size of a head nor the time that it takes, so who sends a byte now and
then could hold memory and a connection for ever. Here a head must be small and arrive in time
(`timed.py`), and what is no HTTP is refused as a problem like everything else. A body is bounded by
who reads it (`json_body.py`), and all of them together by a room of their own (`body_room.py`).
What still comes of it after the answer is thrown away for as long as a request may take: a
connection that is closed at once loses the answer to who is still sending.
"""

import asyncio
import logging
from http import HTTPStatus
from itertools import chain
from typing import Any, ClassVar, Final, cast
from weakref import ref

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from hal0.api.body_room import BodyRoom
from hal0.api.problems import response_for
from hal0.api.request_ids import HEADER, kept_or_made
from hal0.api.timed import TimedProtocol
from hal0.errors import HeadTooLarge, NoRoom, NotHttp, RequestError, TooSlow

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
    """The transport, as requests know it; their answer may come before their end.

    It holds nothing that holds it: a request would else stay in memory until somebody looks for
    garbage, and with 64 requests at once that look took a tenth of their CPU.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = ref(connection)
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        """Close the connection, or as soon as the rest of the request has come."""
        if (connection := self._connection()) is not None:
            connection.close_behind()


class Connection(TimedProtocol):
    """uvicorn's, with limits; it hears of heads and bodies from asyncio and from httptools."""

    most: ClassVar[int]
    room: ClassVar[BodyRoom]
    told_at: ClassVar[float] = -TOLD_EACH_S
    """When it was told last, by the loop's clock, that connections are broken off."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._at_work: RequestResponseCycle | None = None
        self._is_in_head = False
        self._beside_bodies = 0
        self._held_bytes = 0
        """What of the room is taken by what came here and is not answered yet."""
        self._come_bytes = 0
        """What has come since a head began, or more."""
        self._fault: RequestError | None = None
        self._is_refused = False
        self._is_draining = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request, unless there are too many who could send one."""
        super().connection_made(transport)
        self._patient = cast(asyncio.Transport, _Patient(self))
        if len(self.connections) > self.most:
            self._is_refused = True
            transport.abort()
            self._tell_of_crowd()
            return
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more; who is at work on a request hears of it."""
        self._give_back()
        self.pipeline.clear()
        self._tell_gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; those that are no body are few, or it is no request."""
        if self._is_refused:
            return
        self._beside_bodies += len(data)
        self._come_bytes = len(data) + (self._come_bytes if self._is_in_head else 0)
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

    def on_headers_complete(self) -> None:
        """Leave the request to its handler; only so many may wait for it."""
        if len(self.pipeline) >= MAX_WAITING:
            self._fault = NotHttp(
                f"more than {MAX_WAITING} requests came before the first was answered"
            )
            raise self._fault
        if self._come_bytes > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            self._fault = _head_too_large()
            raise self._fault  # httptools stops, and uvicorn calls send_400_response
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (coding := b", ".join(codings)).strip().lower() != b"chunked":
            self._fault = NotHttp(
                f"the body is sent as {coding[:100].decode('latin-1')}; send it as it is, in "
                "chunks or with its length"
            )
            raise self._fault
        super().on_headers_complete()
        if self.pipeline:  # uvicorn reads no further, and would not see that the client leaves
            self.flow.resume_reading()
        self.headers = []  # for trailers, which are no headers
        self.cycle.transport = self._patient
        self._is_in_head = False
        self._clear_deadline()

    def _head_bytes(self) -> int:
        headers = self.headers
        return len(self.url) + sum(map(len, chain.from_iterable(headers))) + 4 * len(headers)

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, if there is room for it."""
        self._beside_bodies = max(0, self._beside_bodies - (1 + CHUNK_COST) * len(body))
        if not self.cycle.response_complete:
            self._hold(len(body))
        super().on_body(body)

    def _hold(self, count: int) -> None:
        """Take room for a part of a body, until its request is answered or nobody waits for it.

        Behind a request that is being answered little may come: beyond uvicorn's limit nothing is
        read, and so nobody would see that the client leaves.
        """
        if not self.room.fits(count):
            for other in self.connections:
                cast(Connection, other).give_back_if_begun()
        try:
            self.room.take(count)
        except NoRoom as error:
            self._fault = error
            raise
        self._held_bytes += count
        if self.cycle is not self._at_work and len(self.cycle.body) + count > HIGH_WATER_LIMIT:
            self._fault = NotHttp(
                f"more than {HIGH_WATER_LIMIT} bytes of a body came before an earlier request was "
                "answered"
            )
            raise self._fault

    def give_back_if_begun(self) -> None:
        """Give back the room of a request whose answer has begun: nobody keeps its body then."""
        if self._at_work is not None and self._at_work.response_started:
            self._give_back()

    def _give_back(self) -> None:
        self.room.give_back(self._held_bytes)
        self._held_bytes = 0

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        self._beside_bodies = 0
        super().on_message_complete()
        if self._is_draining:
            self._close()

    def on_response_complete(self) -> None:
        """Expect the rest of the body that nobody reads any more, or the next request."""
        super().on_response_complete()
        self._give_back()
        self._set_deadline()

    def close_behind(self) -> None:
        """Close behind an answer; first throw away what still comes of its request.

        A connection that is closed while bytes come in is reset, and the answer is lost with it.
        """
        cycle = self._at_work
        if cycle is None or not cycle.more_body or not cycle.response_complete:
            self._close()
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

    def _tell_gone(self) -> None:
        """Let who is at work on a request hear that its client has left; uvicorn tells the last."""
        if (cycle := self._answering) is not None:
            cycle.disconnected = True
            cycle.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def _tell_of_crowd(self) -> None:
        kind, now = type(self), self.loop.time()
        if now - kind.told_at >= TOLD_EACH_S:
            kind.told_at = now
            log.warning("%d connections at once: further ones are broken off", self.most)

    def _is_late(self) -> None:
        """Close, unless a handler is at work: its answer comes first and sets a new deadline."""
        if self.transport.is_closing():
            self._watch()
            return
        if self._answering is not None and not self._is_refused:
            return
        if self._is_in_head and not self._is_refused:
            detail = f"the head did not arrive within {self.limit_s:g} s"
            self._refuse(TooSlow(detail, evidence={"limit_s": self.limit_s}))
        else:
            self.transport.close()
            self._watch()

    def _refuse(self, error: RequestError) -> None:
        """Answer, say that this was all, and hear nothing more."""
        self._is_refused = True
        if self._is_draining:
            self._close()
            return
        self._give_back()
        self.pipeline.clear()
        self._tell_gone()
        if (cycle := self._answering) is not None and cycle.response_started:
            self._close()
            return
        response = response_for(error, "")
        response.headers[HEADER] = kept_or_made(None)
        response.headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
        lines += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.write_eof()
        self._set_deadline(min(LINGER_S, self.limit_s) if isinstance(error, TooSlow) else None)


def within(
    seconds: float, most_at_once: int, body_room: BodyRoom | None = None
) -> type[Connection]:
    """Return the kind of connection whose requests must arrive within so many seconds.

    Beyond `most_at_once` of them, one that is made is broken off. All have one room for bodies.
    """

    class Limited(Connection):
        limit_s = seconds
        most = most_at_once
        room = body_room or BodyRoom()

    return Limited


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request line and headers are larger than {MAX_HEAD_BYTES} bytes, which no request "
        "needs",
        evidence={"limit_bytes": MAX_HEAD_BYTES},
    )
