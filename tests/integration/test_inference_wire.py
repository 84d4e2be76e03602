"""Inference over real sockets: clients that read slowly or never, leave, or send too much."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from hal0.db import open_database
from hal0.jobs.boot import first_act
from hal0.settings import Settings
from tests.acceptance.house import House
from tests.raw_engine import EVENTS, Answer, Got, Line, RawEngine, chunk, says
from tests.rows import ask_load, make_model, make_slot, run_load

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

LIMIT_S = 40
REQUEST_S = 3
MIB = 1 << 20


@pytest.fixture
async def engine(anyio_backend: str) -> AsyncIterator[RawEngine]:
    async with RawEngine() as engine:
        yield engine


@pytest.fixture
async def house(tmp_path: Path, engine: RawEngine) -> AsyncIterator[House]:
    """The API in front of an engine of raw bytes; a slot is ready, and no worker runs."""
    env = {
        "HAL0_REQUEST_TIMEOUT_S": str(REQUEST_S),
        "HAL0_BODY_LIMIT_BYTES": str(4 * MIB),
        "HAL0_SERVING_LINGER_S": "0",
    }
    with House(tmp_path, engine.url, **env) as house:
        db = open_database(Settings(home=house.home, engine_url=engine.url))
        first_act(db, "test")
        make_model(db, "tiny")
        make_slot(db, "chat", "tiny")
        ask_load(db)
        run_load(db)
        db.close()
        await asyncio.to_thread(house.start_api)
        house.unchecked = "its load was written by hand, and no engine got it"
        yield house


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not is_so():  # noqa: ASYNC110 - rows ring no bell
            await asyncio.sleep(0.03)


def state(house: House) -> str:
    ((found,),) = house.sql("SELECT state FROM slots")
    return str(found)


class Client:
    """A connection to the API, written and read byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, house: House, buffer_bytes: int = 1 << 16) -> "Client":
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        line.connect(("127.0.0.1", house.port))
        return cls(*await asyncio.open_connection(sock=line, limit=buffer_bytes))

    async def ask(self, body: bytes | None = None, more: str = "") -> None:
        if body is None:
            body = json.dumps({"model": "chat", "messages": [], "stream": True}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        await self.writer.drain()

    async def head(self) -> str:
        async with asyncio.timeout(LIMIT_S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def piece(self) -> bytes:
        """Return the next chunk, unframed."""
        async with asyncio.timeout(LIMIT_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """Return all that comes until the API closes."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.read(-1)

    def leave(self) -> None:
        self.writer.transport.abort()


async def test_each_chunk_of_a_stream_arrives_before_the_next_is_sent(
    house: House, engine: RawEngine
) -> None:
    may_go_on = asyncio.Semaphore(0)

    async def answer(got: Got, line: Line) -> None:
        line.write(EVENTS)
        for number in range(50):
            line.write(chunk(b"data: %d\n\n" % number))
            await line.drain()
            await may_go_on.acquire()
        line.write(chunk(b""))

    engine.answer = answer
    client = await Client.connect(house)
    await client.ask()
    assert "transfer-encoding: chunked" in await client.head()
    for number in range(50):
        assert await client.piece() == b"data: %d\n\n" % number
        may_go_on.release()
    assert await client.piece() == b""
    await until(lambda: state(house) == "ready")
    client.leave()


async def much(got: Got, line: Line) -> None:
    line.write(EVENTS)
    while not got.gone.is_set():
        line.write(chunk(b"x" * 65_536))
        await line.drain()


async def test_a_client_that_never_reads_is_ended_and_takes_little_memory(
    house: House, engine: RawEngine
) -> None:
    engine.answer = much
    (api,) = [process for process in house.processes if process.poll() is None]
    before = psutil.Process(api.pid).memory_info().rss
    clients = [await Client.connect(house) for _ in range(8)]
    for client in clients:
        await client.ask()
    await until(lambda: len(engine.got) == len(clients))
    assert state(house) == "serving"
    most = before
    async with asyncio.timeout(LIMIT_S):
        while state(house) == "serving":
            most = max(most, psutil.Process(api.pid).memory_info().rss)
            await asyncio.sleep(0.05)
    assert most - before < 40 * MIB
    assert all(got.gone.is_set() for got in engine.got)
    for client in clients:
        client.leave()


async def test_a_client_that_reads_slowly_gets_all_of_it(house: House, engine: RawEngine) -> None:
    """Longer than a request may take, and so slowly that the kernel takes no more of it."""
    content = b"x" * 12 * MIB

    async def answer(got: Got, line: Line) -> None:
        line.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
        line.write(content)
        await line.drain()
        line.close()  # before all of it was read

    engine.answer = answer
    client = await Client.connect(house, buffer_bytes=4096)
    await client.ask(more="Connection: close\r\n")
    await client.head()
    got, slow_until = 0, time.monotonic() + 2 * REQUEST_S
    while got < len(content):
        is_slow = time.monotonic() < slow_until
        got += len(piece := await client.reader.read(4096 if is_slow else MIB))
        assert piece, f"cut after {got} bytes"
        await asyncio.sleep(0.1 if is_slow else 0)
    await until(lambda: state(house) == "ready")
    client.leave()


async def hang(got: Got, line: Line) -> None:
    await got.gone.wait()
    line.close()


@pytest.mark.parametrize(
    ("has_begun", "asks_again"), [(False, False), (False, True), (True, False)]
)
async def test_a_client_that_leaves_ends_its_generation(
    house: House, engine: RawEngine, has_begun: bool, asks_again: bool
) -> None:
    engine.answer = much if has_begun else hang
    client = await Client.connect(house)
    await client.ask()
    await until(lambda: engine.got)
    if has_begun:
        await client.head()
    if asks_again:
        await client.ask()
    client.leave()
    async with asyncio.timeout(LIMIT_S):
        await engine.got[0].gone.wait()
    await until(lambda: state(house) == "ready")
    assert "Traceback" not in house.log.read_text()


async def test_an_engine_that_dies_midway_ends_a_stream_with_an_event_and_json_with_a_break(
    house: House, engine: RawEngine
) -> None:
    async def events(got: Got, line: Line) -> None:
        line.write(EVENTS + chunk(b"data: 1\n\n"))
        await asyncio.sleep(0.2)
        line.transport.abort()

    async def half(got: Got, line: Line) -> None:
        line.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await asyncio.sleep(0.2)
        line.transport.abort()

    engine.answer = events
    client = await Client.connect(house)
    await client.ask()
    await client.head()
    assert await client.piece() == b"data: 1\n\n"
    error = json.loads((await client.piece()).decode().strip().removeprefix("data: "))["error"]
    assert error["code"] == "engine.bad_answer"
    assert await client.piece() == b""
    engine.answer = half
    await client.ask()  # the connection is still good
    assert "content-length: 100" in await client.head()
    assert await client.rest() == b"{"
    client.leave()
    await until(lambda: state(house) == "ready")
    assert "Traceback" not in house.log.read_text()


async def test_a_body_is_bounded_in_bytes_and_in_time(house: House, engine: RawEngine) -> None:
    body = json.dumps({"model": "chat", "x": "y" * (4 * MIB)}).encode()
    client = await Client.connect(house)
    await client.ask(body, "Expect: 100-continue\r\n")
    assert "413" in (await client.head()).partition("\r\n")[0]
    client.leave()
    slow = await Client.connect(house)
    slow.writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{"
    )
    assert "408" in (await slow.head()).partition("\r\n")[0]
    slow.leave()
    assert engine.got == []
    engine.answer = says({"choices": []})
    fits = json.dumps({"model": "chat", "x": "y" * (3 * MIB)}).encode()
    client = await Client.connect(house)
    await client.ask(fits)
    assert "200" in (await client.head()).partition("\r\n")[0]
    assert engine.got[0].body == fits.replace(b"chat", b"tiny")
    client.leave()


async def hang_midway(got: Got, line: Line) -> None:
    line.write(EVENTS + chunk(b"data: x\n\n"))
    await line.drain()
    await hang(got, line)


@pytest.mark.parametrize(
    ("answer", "told"),
    [(hang, "HTTP/1.1 503 "), (hang_midway, 'data: {"error": ')],
    ids=["before", "midway"],
)
async def test_whoever_waits_when_the_api_stops_is_told_so(
    house: House, engine: RawEngine, answer: Answer, told: str
) -> None:
    engine.answer = answer
    client = await Client.connect(house)
    await client.ask()
    await until(lambda: engine.got)
    (api,) = [process for process in house.processes if process.poll() is None]
    stopped = asyncio.create_task(asyncio.to_thread(house.stop, api))
    said = (await client.rest()).decode()
    assert told in said
    assert '"code": "api.stopping"' in said
    assert await stopped == 0
    assert "Traceback" not in house.log.read_text()
    client.leave()


async def test_an_api_that_is_told_to_stop_lets_nobody_serve_for_ever(
    house: House, engine: RawEngine
) -> None:
    engine.answer = much
    client = await Client.connect(house)
    await client.ask()
    await client.head()
    (api,) = [process for process in house.processes if process.poll() is None]
    assert await asyncio.to_thread(house.stop, api) == 0
    assert state(house) == "ready"
    client.leave()
