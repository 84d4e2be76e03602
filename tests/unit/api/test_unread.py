"""Answers that are read slowly or never: who goes on to read gets all, who does not is let go."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from hal0.api.connection import Connection, within

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

LIMIT_S = 20
UNREAD_S = 0.7
KIB = 1 << 10
SIZE = 3 << 20
NARROW = 4 * KIB
WIDE = SIZE // 3
"""So much, twice, the kernel takes of an answer at once; it takes more when a third was read."""
ONCE, IN_PIECES, A_LITTLE_LEFT, BROKEN = "once", "in pieces", "a little left", "broken"


class Server:
    """Answers at once, in pieces, or so that little waits here at the end, which may not come."""

    def __init__(self) -> None:
        self.sends = ONCE
        self.port = 0
        self.open: set[Connection] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.sends in (A_LITTLE_LEFT, BROKEN):
            while not self.waits_here():
                await send(part(b"x" * KIB, is_last=False))
            if self.sends == A_LITTLE_LEFT:
                await send(part(b"", is_last=True))
            return
        size = SIZE if self.sends == ONCE else 64 * KIB
        for sent in range(size, SIZE + 1, size):
            await send(part(b"x" * size, is_last=sent == SIZE))

    def waits_here(self) -> int:
        """Return how many bytes of what is sent the kernel does not take."""
        return sum(one.transport.get_write_buffer_size() for one in self.open)

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(LIMIT_S):
            while not is_so():  # noqa: ASYNC110 - connections ring no bell
                await asyncio.sleep(0.01)


def part(body: bytes, *, is_last: bool) -> dict[str, object]:
    return {"type": "http.response.body", "body": body, "more_body": not is_last}


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[Server]:
    app = Server()
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", http=within(UNREAD_S, 100), ws="none"
    )
    running = uvicorn.Server(config)
    app.open = running.server_state.connections  # type: ignore[assignment]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WIDE)
        app.port = listener.getsockname()[1]
        serving = asyncio.create_task(running.serve([listener]))
        yield app
        running.should_exit = running.force_exit = True
        await serving


async def asked(server: Server, *, closes: bool) -> socket.socket:
    """Return a connection over which it is asked and that takes little at once."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
    line.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(line, ("127.0.0.1", server.port))
    more = b"Connection: close\r\n" if closes else b""
    await loop.sock_sendall(line, b"GET / HTTP/1.1\r\nHost: h\r\n" + more + b"\r\n")
    return line


@pytest.mark.parametrize(("sends", "closes"), [(ONCE, False), (IN_PIECES, True)])
async def test_who_goes_on_reading_gets_all_however_slowly(
    server: Server, sends: str, closes: bool
) -> None:
    server.sends = sends
    loop, got = asyncio.get_running_loop(), bytearray()
    with await asked(server, closes=closes) as line:
        slow_until = loop.time() + 3 * UNREAD_S
        async with asyncio.timeout(LIMIT_S):
            while not got.endswith(b"\r\n0\r\n\r\n"):
                is_slow = loop.time() < slow_until
                piece = await loop.sock_recv(line, NARROW if is_slow else SIZE)
                assert piece, f"cut after {len(got)} bytes"
                got += piece
                await asyncio.sleep(0.05 if is_slow else 0)
    assert got.count(b"x") == SIZE


@pytest.mark.parametrize(
    ("sends", "closes"),
    [
        (ONCE, True),
        (IN_PIECES, False),
        (A_LITTLE_LEFT, True),
        (A_LITTLE_LEFT, False),
        (BROKEN, False),
    ],
)
async def test_who_reads_nothing_is_let_go(server: Server, sends: str, closes: bool) -> None:
    server.sends = sends
    with await asked(server, closes=closes):
        await server.until(server.waits_here)
        await server.until(lambda: not server.open)


async def test_who_reads_for_long_and_then_no_more_is_let_go(server: Server) -> None:
    loop = asyncio.get_running_loop()
    with await asked(server, closes=True) as line:
        await server.until(server.waits_here)
        (connection,) = server.open
        before = server.waits_here()
        connection.transport.set_write_buffer_limits(high=SIZE, low=before - 1)
        slow_until = loop.time() + 2 * UNREAD_S
        async with asyncio.timeout(LIMIT_S):
            while server.waits_here() == before:  # then uvicorn is told that enough was read
                await loop.sock_recv(line, NARROW)
                await asyncio.sleep(0.05 if loop.time() < slow_until else 0)
        assert server.waits_here()
        await server.until(lambda: not server.open)
