"""One answer on its way to a client: the bytes on the wire, their pauses and how they end."""

import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from tests.fakes.source.answer import Answer
from tests.fakes.source.manner import Manner

PIECE_BYTES = 64 * 1024
TICK_S = 0.05


class EndError(Exception):
    """The client closed, the server ends, or the manner wants the connection to end."""


class Line:
    """One answer on its way to a client."""

    def __init__(
        self,
        connection: socket.socket,
        record: dict[str, Any],
        mutex: threading.Lock,
        is_closing: threading.Event,
    ) -> None:
        self._connection = connection
        self._record = record
        self._mutex = mutex
        self._is_closing = is_closing

    def send_head(self, answer: Answer, *, is_dribbled: bool) -> None:
        """Send the status line and the headers."""
        known = {status.value: status.phrase for status in HTTPStatus}
        lines = [f"HTTP/1.1 {answer.status} {known.get(answer.status, 'Scripted')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        raw = "\r\n".join([*lines, "", ""]).encode("latin-1")
        pieces = [raw[n : n + 1] for n in range(len(raw))] if is_dribbled else [raw]
        for piece in pieces:
            self._connection.sendall(piece)
            self.wait(threading.Event(), TICK_S if is_dribbled else 0)

    def send_body(self, answer: Answer, manner: Manner, released: threading.Event) -> None:
        """Send the body with its pauses, up to where the manner ends it."""
        is_chunked = answer.headers.get("Transfer-Encoding") == "chunked"
        hold_at = len(answer.body) // 2 if manner.hold_at is None else manner.hold_at
        stops = {
            manner.drop_after: lambda: self.end(manner.drop_by),
            manner.stall_after: lambda: self.wait(released),
            hold_at if manner.hold else None: lambda: self.wait(manner.hold or released),
        }
        sent = 0
        for piece in pieces(answer.body, manner, {stop for stop in stops if stop is not None}):
            if sent in stops:
                stops[sent]()
            if piece:
                self._send(piece, is_chunked=is_chunked)
                sent += len(piece)
            self.wait(threading.Event(), TICK_S if manner.dribble or manner.slow else 0)
        if is_chunked:
            self._connection.sendall(b"0\r\n\r\n")

    def _send(self, piece: memoryview, *, is_chunked: bool) -> None:
        with self._mutex:  # before it leaves: who has received a byte finds it counted
            self._record["sent_bytes"] += len(piece)
        if is_chunked:
            self._connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        else:
            self._connection.sendall(piece)

    def wait(self, event: threading.Event, timeout_s: float | None = None) -> None:
        """Return when the event is set or the time is over; raise EndError when nobody is left."""
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while not event.is_set() and (limit is None or time.monotonic() < limit):
            if self._is_closing.is_set() or self._client_is_gone():
                raise EndError
            left = TICK_S if limit is None else limit - time.monotonic()
            event.wait(max(0.0, min(left, TICK_S / 2)))

    def end(self, by: str) -> None:
        """End the connection; what was sent arrives, also when it is reset."""
        if by == "rst":
            limit = time.monotonic() + 2
            while self._unsent_bytes() and time.monotonic() < limit:
                time.sleep(TICK_S / 10)
            self._connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        raise EndError

    def _unsent_bytes(self) -> int:
        raw = fcntl.ioctl(self._connection.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(raw, "little")

    def _client_is_gone(self) -> bool:
        readable, _, _ = select.select([self._connection], [], [], 0)
        if not readable:
            return False
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True


def pieces(body: bytes, manner: Manner, stops: set[int]) -> Iterator[memoryview]:
    """Yield the body in pieces that end at each stop, and an empty one when all was yielded."""
    most = PIECE_BYTES
    if manner.slow:
        most = max(1, int(manner.slow * TICK_S))
    if manner.dribble:
        most = 1
    view = memoryview(body or b"\0" if manner.endless else body)
    sent = 0
    while sent < len(view) or manner.endless:
        at = sent % len(view)
        ends = [stop - sent for stop in stops if stop > sent]
        piece = view[at : at + min(most, len(view) - at, *ends)]
        yield piece
        sent += len(piece)
    yield memoryview(b"")
