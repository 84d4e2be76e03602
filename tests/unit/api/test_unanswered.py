"""What a connection may hold while a request on it is not answered: bodies, and who still waits."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from hal0.api.body_room import BodyRoom
from hal0.api.connection import within

pytestmark = pytest.mark.anyio

LIMIT_S = 20
KIB = 1 << 10
MOST_HELD = 256 * KIB


class Server:
    """Answers each request when it is told to, or when its client has left."""

    def __init__(self) -> None:
        self.bodies: list[int] = []
        self.left = 0
        self.may_answer = asyncio.Semaphore(0)
        self.begins_at_once = False
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, is_more = 0, True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            is_more = message.get("more_body", False)
        self.bodies.append(size)
        headers = [(b"content-length", b"2")]
        begin = {"type": "http.response.start", "status": 200, "headers": headers}
        if self.begins_at_once:
            await send(begin)
        gone = asyncio.ensure_future(receive())
        told = asyncio.ensure_future(self.may_answer.acquire())
        done, late = await asyncio.wait((gone, told), return_when=asyncio.FIRST_COMPLETED)
        for task in late:
            task.cancel()
        if gone in done:
            self.left += 1
            return
        if not self.begins_at_once:
            await send(begin)
        await send({"type": "http.response.body", "body": b"ok"})

    async def until(self, heard: int, left: int = 0) -> None:
        """Wait until so many requests were heard, and so many clients seen to leave."""
        async with asyncio.timeout(LIMIT_S):
            while (len(self.bodies), self.left) != (heard, left):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[Server]:
    app = Server()
    kind = within(60.0, 100, BodyRoom(MOST_HELD))
    running = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", http=kind, ws="none")
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app.port = listener.getsockname()[1]
        serving = asyncio.create_task(running.serve([listener]))
        yield app
        running.should_exit = running.force_exit = True
        await serving


class Client:
    """A connection, written byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, server: Server) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    def ask(self, size: int) -> None:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size
        self.writer.write(head + b"x" * size)

    async def hear(self) -> tuple[int, bytes, bytes]:
        """Return the status, the head and the body of an answer."""
        async with asyncio.timeout(LIMIT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            size = int(head.partition(b"content-length: ")[2].split()[0])
            return int(head.split()[1]), head, await self.reader.readexactly(size)

    def leave(self) -> None:
        self.writer.transport.abort()


async def test_a_client_that_has_asked_again_is_seen_to_leave(server: Server) -> None:
    client = await Client.of(server)
    client.ask(2)
    await server.until(heard=1)
    client.ask(2)
    client.leave()
    await server.until(heard=1, left=1)


async def test_what_was_asked_meanwhile_is_answered_in_its_turn(server: Server) -> None:
    client = await Client.of(server)
    for size in (2, 60 * KIB, 3):
        client.ask(size)
    for _ in range(3):
        server.may_answer.release()
        assert (await client.hear())[0] == 200
    assert server.bodies == [2, 60 * KIB, 3]
    client.leave()


async def test_a_body_that_would_hide_that_its_client_leaves_is_refused(server: Server) -> None:
    """It could not be held and not be read either, but who is not read is not seen to leave."""
    client = await Client.of(server)
    client.ask(2)
    await server.until(heard=1)
    client.ask(100 * KIB)
    status, _, body = await client.hear()
    assert (status, json.loads(body)["code"]) == (400, "request.not_http")
    await server.until(heard=1, left=1)
    client.leave()


async def test_bodies_of_requests_that_are_not_answered_are_bounded_in_sum(server: Server) -> None:
    holders = [await Client.of(server) for _ in range(2)]
    for number, client in enumerate(holders, 1):
        client.ask(MOST_HELD // 2)
        await server.until(heard=number)
    late = await Client.of(server)
    late.ask(1)
    status, head, body = await late.hear()
    assert (status, json.loads(body)["code"]) == (503, "request.no_room")
    assert b"retry-after: 1\r\n" in head
    server.may_answer.release()
    assert (await holders[0].hear())[0] == 200
    holders[0].ask(MOST_HELD // 2)
    await server.until(heard=3)
    holders[1].leave()
    await server.until(heard=3, left=1)
    next_one = await Client.of(server)
    next_one.ask(MOST_HELD // 2)
    await server.until(heard=4, left=1)
    for client in (holders[0], late, next_one):
        client.leave()


async def test_an_answer_that_has_begun_takes_no_room_however_long_it_lasts(server: Server) -> None:
    server.begins_at_once = True
    clients = [await Client.of(server) for _ in range(4)]
    for number, client in enumerate(clients, 1):
        client.ask(MOST_HELD // 2)
        await server.until(heard=number)
    for client in clients:
        server.may_answer.release()
        assert (await client.hear())[0] == 200
        client.leave()
