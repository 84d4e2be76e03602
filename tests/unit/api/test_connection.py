"""A connection that is served by the real server, and what it leaves in memory."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from hal0.api.connection import within
from tests.garbage import left_behind

pytestmark = pytest.mark.anyio

REQUESTS = 20
REQUEST = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"


async def _answering(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await receive()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port(anyio_backend: str) -> AsyncIterator[int]:
    config = uvicorn.Config(
        _answering, log_config=None, lifespan="off", http=within(60.0, 100), ws="none"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


async def _ask(port: int, *, is_kept: bool) -> None:
    """Send the requests, over one connection or each over its own."""
    for _ in range(1 if is_kept else REQUESTS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(REQUESTS if is_kept else 1):
            writer.write(REQUEST)
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_request_leaves_nothing_to_a_search_for_garbage(port: int, is_kept: bool) -> None:
    await _ask(port, is_kept=is_kept)
    with left_behind() as found:
        await _ask(port, is_kept=is_kept)
    assert found["RequestResponseCycle"] < REQUESTS / 2, found
    assert found["Limited"] < REQUESTS / 2, found
