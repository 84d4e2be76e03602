"""What becomes of a request whose engine breaks off, stalls, talks nonsense, or is not there."""

import asyncio
import contextlib
import json
import socket

import pytest

from hal0.api.problems import as_problem
from hal0.db import Database
from hal0.errors import (
    EngineBadAnswer,
    EngineTimeout,
    EngineUnreachable,
)
from hal0.settings import Settings
from tests.raw_engine import EVENTS, OK, Got, Line, chunk
from tests.unit.dispatcher.rig import CHAT, LIMIT_S, Rig, rig

pytestmark = pytest.mark.anyio


async def reset(got: Got, line: Line) -> None:
    line.transport.abort()


async def no_http(got: Got, line: Line) -> None:
    line.write(b"proxy error: Failed to read connection\r\n\r\n")
    line.close()


async def huge_head(got: Got, line: Line) -> None:
    line.write(OK + b"X-Much: " + b"x" * 5_000_000 + b"\r\nContent-Length: 0\r\n\r\n")
    line.close()


async def many_headers(got: Got, line: Line) -> None:
    line.write(OK + b"X-Much: 1\r\n" * 100_000 + b"Content-Length: 0\r\n\r\n")
    line.close()


@pytest.mark.parametrize("answer", [reset, no_http, huge_head, many_headers])
async def test_an_engine_that_breaks_before_it_answers_is_502_and_asked_no_second_time(
    at: Rig, answer: object
) -> None:
    at.engine.answer = answer  # type: ignore[assignment]
    with pytest.raises(EngineBadAnswer):
        await at.ask(at.client({"stream": True}))
    assert len(at.engine.got) == 1
    await at.is_released()


async def test_an_engine_that_is_not_there_is_unreachable(at: Rig) -> None:
    await at.engine.__aexit__(None, None, None)
    with pytest.raises(EngineUnreachable, match="engine raw accepts no connections"):
        await at.ask(at.client({"stream": True}))
    await at.is_released()


async def test_an_engine_that_takes_no_connection_is_unreachable_in_time(
    quick: Settings, db: Database
) -> None:
    """It neither takes nor refuses one: a machine that is off, or a line that is full."""
    with contextlib.ExitStack() as lines:
        listener = lines.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            line = lines.enter_context(socket.socket())
            line.setblocking(False)
            line.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        limits = {"connect_timeout_s": 0.3, "first_byte_timeout_s": 600.0}
        async with rig(quick.model_copy(update=limits), db, url=url) as at:
            with pytest.raises(EngineUnreachable, match="engine raw accepts no connections"):
                await at.ask(at.client())
            await at.is_released()


async def test_an_engine_that_does_not_begin_is_given_up_in_time(
    quick: Settings, db: Database
) -> None:
    async def hang(got: Got, line: Line) -> None:
        await got.gone.wait()
        line.close()

    async with rig(quick.model_copy(update={"first_byte_timeout_s": 0.3}), db) as at:
        at.engine.answer = hang
        with pytest.raises(EngineTimeout, match="begin to answer"):
            await at.ask(at.client())
        async with asyncio.timeout(LIMIT_S):
            await at.engine.got[0].gone.wait()
        assert len(at.engine.got) == 1
        await at.is_released()


def events_of(parts: list[bytes]) -> list[str]:
    return [event for event in b"".join(parts).decode().split("\n\n") if event]


async def half_a_chunk(got: Got, line: Line) -> None:
    line.write(EVENTS + chunk(b"data: 1\n\n") + b"100\r\ndata: half")
    await line.drain()
    line.close()


async def reset_midway(got: Got, line: Line) -> None:
    line.write(EVENTS + chunk(b"data: 1\n\n"))
    await asyncio.sleep(0.2)
    line.transport.abort()


async def bad_frame(got: Got, line: Line) -> None:
    line.write(EVENTS + chunk(b"data: 1\n\n"))
    await asyncio.sleep(0.2)
    line.write(b"zzz\r\n")
    await line.drain()


@pytest.mark.parametrize("answer", [half_a_chunk, reset_midway, bad_frame])
async def test_a_stream_that_breaks_ends_with_an_event_that_says_so(
    at: Rig, answer: object
) -> None:
    at.engine.answer = answer  # type: ignore[assignment]
    client = await at.ask(at.client({"stream": True}))
    first, *_, last = events_of(client.parts)
    assert first == "data: 1"
    error = json.loads(last.strip().removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("engine.bad_answer", "server_error")
    assert client.has_all
    await at.is_released()


async def test_a_stream_of_the_responses_api_ends_with_an_event_of_its_own_kind(at: Rig) -> None:
    at.engine.answer = reset_midway
    client = await at.ask(at.client({"stream": True}), "/v1/responses")
    name, data = events_of(client.parts)[-1].strip().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["type"] == "error"


async def stall(got: Got, line: Line) -> None:
    line.write(EVENTS + chunk(b"data: 1\n\n"))
    await got.gone.wait()
    line.close()


async def test_a_stream_that_stalls_is_ended_in_time(quick: Settings, db: Database) -> None:
    async with rig(quick.model_copy(update={"between_bytes_timeout_s": 0.3}), db) as at:
        at.engine.answer = stall
        client = await at.ask(at.client({"stream": True}))
        assert "engine.timeout" in events_of(client.parts)[-1]
        assert client.has_all
        await at.is_released()


async def too_short(got: Got, line: Line) -> None:
    line.write(OK + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    await line.drain()
    line.close()


async def events_with_a_length(got: Got, line: Line) -> None:
    line.write(OK + b"Content-Type: text/event-stream\r\nContent-Length: 100\r\n\r\ndata: 1\n\n")
    await asyncio.sleep(0.2)
    line.transport.abort()


@pytest.mark.parametrize("answer", [too_short, events_with_a_length])
async def test_an_answer_that_breaks_is_left_without_its_end(at: Rig, answer: object) -> None:
    at.engine.answer = answer  # type: ignore[assignment]
    client = await at.ask(at.client())
    assert client.status == 200
    assert not client.has_all
    assert len(at.engine.got) == 1, "a second generation"
    await at.is_released()


async def test_a_client_is_told_neither_where_the_engine_is_nor_bytes_of_what_it_said(
    settings: Settings, db: Database, anyio_backend: str
) -> None:
    """Who may only ask for inference learns nothing else; an answer is nobody else's to keep."""

    async def no_chunk(got: Got, line: Line) -> None:
        line.write(OK + b"Transfer-Encoding: chunked\r\n\r\nMY-SECRET-ANSWER\r\n")
        await line.drain()

    async with rig(settings, db) as at:
        at.engine.answer = no_chunk
        with pytest.raises(EngineBadAnswer) as broken:
            await at.ask(at.client({"stream": True}))
        await at.engine.__aexit__(None, None, None)
        with pytest.raises(EngineUnreachable) as away:
            await at.ask(at.client())
        address = at.engine.url.removeprefix("http://")
    told = [json.dumps(as_problem(caught.value, CHAT)) for caught in (broken, away)]
    assert not [text for text in told if "SECRET" in text or address in text]


async def test_a_status_that_is_none_of_http_is_not_passed_on(
    settings: Settings, db: Database, anyio_backend: str
) -> None:
    """No server has a line for it: an error in the midst of an answer."""

    async def answer(got: Got, line: Line) -> None:
        line.write(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n")
        await line.drain()

    async with rig(settings, db) as at:
        at.engine.answer = answer
        with pytest.raises(EngineBadAnswer, match="999"):
            await at.ask(at.client())
