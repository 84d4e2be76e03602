"""A client that is written by hand on httptools, to see how much any library can be blamed for.

It does what every request here needs and no more: no TLS, no redirects, no retry on a connection
that the other side closed meanwhile, no timeouts.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import httptools


class RawClient:
    """Connections that are kept, each with one request at a time."""

    def __init__(self, upstream: str) -> None:
        where = urlsplit(upstream)
        self._host, self._port = str(where.hostname), where.port or 80
        self._host_line = b"Host: %s\r\n" % where.netloc.encode()
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def post(
        self, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> AsyncIterator["Connection"]:
        """Send a request; its answer's head is there when this is entered."""
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            lines = b"".join(b"%s: %s\r\n" % header for header in headers)
            connection.transport.write(
                b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n%s\r\n%s"
                % (path.encode(), self._host_line, len(body), lines, body)
            )
            await connection.head()
            yield connection
        finally:
            if connection.is_reusable:
                self._idle.append(connection)
            else:
                connection.transport.close()

    async def _connect(self) -> "Connection":
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection

    async def close(self) -> None:
        """Close what is idle."""
        for connection in self._idle:
            connection.transport.close()


class Connection(asyncio.Protocol):
    """One connection, and the answer that comes on it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None
        self._is_lost = False
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._came = bytearray()
        self._is_whole = False

    @property
    def is_reusable(self) -> bool:
        """Whether the answer is whole and the connection stands."""
        return self._is_whole and not self._is_lost

    async def head(self) -> None:
        """Wait for the head of the next answer."""
        self._begin()
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """Return what has come, b"" at the end."""
        while not self._came and not self._is_whole:
            await self._more()
        chunk, self._came = bytes(self._came), bytearray()
        self.transport.resume_reading()
        return chunk

    async def _more(self) -> None:
        if self._is_lost:
            raise ConnectionResetError("the upstream broke off")
        self._woken = self._loop.create_future()
        await self._woken
        self._woken = None

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    # -- what asyncio and httptools call --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is of a class of its own

    def data_received(self, data: bytes) -> None:
        """Parse; wait with more while nobody takes it."""
        self._parser.feed_data(data)
        if len(self._came) > 1 << 16:
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._is_lost = True
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep it."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Have a head."""
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Have bytes."""
        self._came += body

    def on_message_complete(self) -> None:
        """Have everything."""
        self._is_whole = True
