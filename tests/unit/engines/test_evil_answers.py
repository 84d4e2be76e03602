"""An engine that answers with what no row, path or memory can hold: both adapters, one rule."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from hal0.engines.base import Engine
from hal0.engines.connect import connect
from hal0.engines.http import MAX_ANSWER_BYTES, error_of
from hal0.engines.lemonade import LemonadeEngine
from hal0.engines.llamacpp import LlamaCppEngine
from hal0.errors import EngineBadAnswer, EngineError, EngineRefused

pytestmark = pytest.mark.anyio

Adapter = Callable[..., Engine]
ADAPTERS = pytest.mark.parametrize("adapter", [LemonadeEngine, LlamaCppEngine])
DEPTHS = [800, 900, 950, 1000, 5000, 200_000]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def answering(adapter: Adapter, content: bytes, status: int = 200) -> Engine:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=content)

    return adapter("http://engine.test:1", None, httpx.MockTransport(answer))


async def load(engine: Engine) -> None:
    await engine.load("ga", {}, lambda: None)


@asynccontextmanager
async def engine_without_end(kind: str, head: bytes) -> AsyncIterator[tuple[Engine, list[int]]]:
    """An engine whose every answer goes on until it is hung up on; what it sent, in bytes."""
    sent: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        block = b"100000\r\n" + b" " * 2**20 + b"\r\n"
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(block)
                await writer.drain()
                sent.append(2**20)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    engine = connect(kind, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield engine, sent
    finally:
        await engine.close()
        server.close()


CALLS: tuple[Callable[[Engine], Awaitable[object]], ...] = (
    lambda engine: engine.health(),
    lambda engine: engine.resolve("ga"),
    lambda engine: engine.unload("ga", lambda: None),
    load,
)


@pytest.mark.parametrize("kind", ["lemonade", "llamacpp"])
@pytest.mark.parametrize("status", [b"200 OK", b"500 No"])
async def test_an_answer_without_end_is_a_bad_one(kind: str, status: bytes) -> None:
    async with engine_without_end(kind, b"HTTP/1.1 " + status + b"\r\n") as (engine, sent):
        for call in CALLS:
            with pytest.raises(EngineBadAnswer, match="more than"):
                async with asyncio.timeout(60):
                    await call(engine)
        assert sum(sent) < len(CALLS) * 4 * MAX_ANSWER_BYTES


@pytest.mark.parametrize("kind", ["lemonade", "llamacpp"])
async def test_a_liveness_answer_without_end_is_no_life(kind: str) -> None:
    async with engine_without_end(kind, b"HTTP/1.1 200 OK\r\n") as (engine, sent):
        assert await engine.is_live() is False
        assert sum(sent) < 4 * MAX_ANSWER_BYTES


@ADAPTERS
@pytest.mark.parametrize(
    "content",
    [
        rb'{"error": {"message": "\ud800x\u0000", "code": "\udfff"}}',
        rb'{"error": "\ud800x\u0000"}',
        rb'{"error": {"\ud800x\u0000": 1}}',
        b'{"error": "\xed\xa0\x80x\0"}',
        b"\xed\xa0\x80x\0",
    ],
)
async def test_what_an_error_says_can_be_written_to_a_row(adapter: Adapter, content: bytes) -> None:
    with pytest.raises(EngineRefused) as told:
        await load(answering(adapter, content, 500))
    row = json.dumps(told.value.as_row(), ensure_ascii=False)
    row.encode()
    assert "x" in told.value.detail
    assert "\0" not in told.value.detail


@ADAPTERS
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("depth", DEPTHS)
async def test_json_nested_deeper_than_can_be_read_is_an_error_of_the_engine(
    adapter: Adapter, status: int, depth: int
) -> None:
    deep = b'{"error": ' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(EngineError):
        await load(answering(adapter, deep, status))


def test_a_message_without_end_is_cut() -> None:
    body = json.dumps({"error": {"message": "x" * 100_000, "code": "y" * 100_000}})
    message, code = error_of(httpx.Response(500, content=body.encode()))
    assert len(message) < 5000
    assert len(code or "") < 5000


@pytest.mark.parametrize("name", ["\\ud800", "\\n", "\\u0000", " "])
async def test_a_model_that_cannot_be_called_by_its_name_is_a_bad_answer(name: str) -> None:
    engine = answering(LemonadeEngine, f'{{"id": "{name}", "checkpoint": "/m/ga"}}'.encode())
    try:
        found = await engine.resolve("ga")
    except EngineBadAnswer:
        return
    assert found is not None
    found.name.encode()
    assert found.name.isprintable()


@pytest.mark.parametrize("path", ["/a\\u0000b", "/a\\ud800b"])
async def test_a_path_that_cannot_be_is_one_that_is_not_there(path: str) -> None:
    body = f'{{"id": "ga", "checkpoint": "{path}", "checkpoints": {{"mmproj": "{path}"}}}}'
    found = await answering(LemonadeEngine, body.encode()).resolve("ga")
    assert found is not None
    for one in (found.checkpoint, *found.others):
        assert one is not None
        assert one.encode().count(b"\0") == 0


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "1" + "0" * 400, "-1", "true"])
async def test_a_time_limit_that_is_no_time_is_unknown(number: str) -> None:
    body = f'{{"auto_evict": false, "global_timeout": {number}}}'.encode()
    config = await answering(LemonadeEngine, body).config()
    assert config is not None
    assert config.load_limit_s is None
