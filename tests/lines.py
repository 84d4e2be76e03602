"""A line to a server that is spoken in bytes, for what no HTTP client would send."""

import contextlib
import http.client
import json
import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from hal0.api.problems import MEDIA_TYPE

LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer; `code` is that of the problem that it is, if it is one."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """Return the code of a problem; anything else must be JSON, or nothing at all."""
        if self.headers.get_content_type() != MEDIA_TYPE:
            assert self.status < 400, self.body
            return ""
        said: dict[str, Any] = json.loads(self.body)
        assert said["status"] == self.status
        assert self.headers["X-Request-ID"]
        return str(said["code"])


class Line:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def say(self, *parts: bytes) -> None:
        """Send these bytes."""
        self.socket.sendall(b"".join(parts))

    def hear(self) -> Heard:
        """Read one answer."""
        answer = http.client.HTTPResponse(self.socket)
        answer.begin()
        return Heard(answer.status, answer.msg, answer.read())

    def end(self) -> None:
        """Say that nothing more will be said."""
        with contextlib.suppress(OSError):  # the server was first
            self.socket.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """Read until the server has nothing more to say."""
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := self.socket.recv(65536):
                heard += piece
        return heard

    def is_closed(self) -> bool:
        """Wait for what comes next; tell whether it is the end."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def pour(self, piece: bytes, limit_s: float = LIMIT_S) -> int:
        """Send the same again and again until the server hears no more; return how many bytes."""
        until, sent = time.monotonic() + limit_s, 0
        try:
            while time.monotonic() < until:
                sent += self.socket.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            return sent
        raise AssertionError(f"still heard after {limit_s} s and {sent} bytes")
