"""One request through the dispatcher: what an engine gets, what a client gets, byte for byte."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from hal0.db import Database
from hal0.errors import (
    EngineBadAnswer,
    EngineUnauthorized,
    ModelNotFound,
    NotJsonType,
    RouteNotFound,
    TooLarge,
)
from hal0.settings import Settings
from hal0.states import SlotState
from hal0.tables import speeds
from tests.raw_engine import EVENTS, OK, Got, Line, chunk, says
from tests.unit.dispatcher.rig import CHAT, Rig, rig

pytestmark = pytest.mark.anyio


# -- what the engine gets ---------------------------------------------------------------------


async def test_the_engine_gets_its_own_name_of_the_model_and_all_else_as_it_came(at: Rig) -> None:
    body = b'{"model":"chat", "messages" : [ {"role":"user"} ],"temperature":0.70}'
    await at.ask(at.client(body=body))
    (got,) = at.engine.got
    assert (got.method, got.target) == ("POST", CHAT)
    assert got.body == body.replace(b"chat", b"tiny")
    assert got.header("content-length") == str(len(got.body))


@pytest.mark.parametrize("name", ["chat", "tiny"])
async def test_a_slot_is_found_by_its_name_and_by_its_model_s(at: Rig, name: str) -> None:
    client = await at.ask(at.client({"model": name}))
    assert client.status == 200


async def test_what_is_between_client_and_hal0_alone_stays_here(at: Rig) -> None:
    kept_back = {
        "authorization": "Bearer secret", "cookie": "a=b", "host": "hal0.lan", "te": "trailers",
        "connection": "keep-alive, X-Hop", "x-hop": "1", "keep-alive": "5", "upgrade": "h2c",
        "proxy-authorization": "Basic x", "expect": "100-continue", "x-api-key": "secret",
        "proxy-connection": "keep-alive", "trailer": "x-sum", "transfer-encoding": "chunked",
        "api-key": "secret", "proxy-authenticate": "Basic",
        "origin": "http://hal0.lan", "referer": "http://hal0.lan/", "x-request-id": "another",
        "content-encoding": "identity", "content-digest": "x", "repr-digest": "x", "digest": "x",
        "content-md5": "x",
    }  # fmt: skip
    passed = {"openai-beta": "x", "user-agent": "mine/1", "accept": "*/*", "traceparent": "00-1"}
    given = {**kept_back, **passed, "accept-encoding": "gzip", "content-type": "application/json"}
    headers = [(name.encode(), value.encode()) for name, value in given.items()]
    await at.ask(at.client(headers=headers))
    (got,) = at.engine.got
    assert {name.lower(): value for name, value in got.headers} == {
        **passed,
        "host": at.engine.url.removeprefix("http://"),
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(got.body)),
        "x-request-id": "request-1",
    }


async def test_the_engine_is_shown_its_key_and_another_one_from_the_next_request_on(
    quick: Settings, db: Database, tmp_path: Path
) -> None:
    key = tmp_path / "engine.key"
    key.write_text("first\n")
    async with rig(quick, db, key_file=str(key)) as at:
        for text in ("first", "second"):
            key.write_text(text)
            await at.ask(at.client())
            assert at.engine.got[-1].header("authorization") == f"Bearer {text}"
        key.unlink()
        with pytest.raises(EngineUnauthorized, match="cannot be read"):
            await at.ask(at.client())
        await at.is_released()
    assert len(at.engine.got) == 2


async def test_a_large_body_arrives_whole(at: Rig) -> None:
    image = "A" * 20_000_000
    await at.ask(at.client({"image": image}))
    assert at.engine.got[0].json() == {"model": "tiny", "messages": [], "image": image}


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(
    quick: Settings, db: Database
) -> None:
    async with rig(quick.model_copy(update={"body_limit_bytes": 100}), db) as at:
        announced = [(b"content-type", b"application/json"), (b"content-length", b"101")]
        for client in (at.client(body=b"", headers=announced), at.client({"x": "y" * 100})):
            with pytest.raises(TooLarge):
                await at.ask(client)
        await at.ask(at.client({"x": "y" * 50}))
    assert len(at.engine.got) == 1


async def test_a_form_arrives_with_the_engine_s_name_of_the_model(at: Rig) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nchat\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n\x00\xff'
        b"\r\n--b--\r\n"
    )
    kind = b"multipart/form-data; boundary=b"
    client = at.client(body=form, headers=[(b"content-type", kind)])
    await at.ask(client, "/v1/audio/transcriptions")
    (got,) = at.engine.got
    assert got.header("content-type") == kind.decode()
    assert got.body == form.replace(b"chat", b"tiny")


@pytest.mark.parametrize(
    "path", ["/v1/load", "/v1/chat/completions/", "/v1//chat/completions", "/v1/CHAT/completions",
             "/chat/completions", "/v1/models", "/v1/chat/../load", ""]
)  # fmt: skip
async def test_nothing_that_is_not_listed_is_passed_on(at: Rig, path: str) -> None:
    with pytest.raises(RouteNotFound):
        await at.ask(at.client(), path)
    assert at.engine.got == []


async def test_a_model_that_nobody_has_reaches_no_engine(at: Rig) -> None:
    with pytest.raises(ModelNotFound):
        await at.ask(at.client({"model": "extra.tiny"}))
    assert at.engine.got == []
    assert at.state() is SlotState.READY


# -- what the client gets ---------------------------------------------------------------------


async def test_status_body_and_headers_of_the_end_are_passed_on(at: Rig) -> None:
    dropped = (
        "Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nDate: now\r\n"
        "Set-Cookie: a=b\r\nAccess-Control-Allow-Origin: *\r\nX-Request-ID: theirs\r\n"
    )
    at.engine.answer = says({"a": 1}, "201 Made", f"{dropped}X-More: yes\r\n")
    client = await at.ask(at.client())
    assert client.status == 201
    assert client.answer_headers == {
        b"content-type": b"application/json",
        b"x-more": b"yes",
        b"content-length": b"8",
    }
    assert b"".join(client.parts) == b'{"a": 1}'
    assert client.has_all


async def test_each_piece_of_a_stream_arrives_before_the_next_is_sent(at: Rig) -> None:
    client = at.client({"stream": True})
    seen = []

    async def answer(got: Got, line: Line) -> None:
        line.write(EVENTS)
        for number in range(20):
            piece = b"data: %d\n\n" % number
            line.write(chunk(piece))
            await at.until(lambda: client.parts[-1:] == [piece])  # noqa: B023 - it is awaited here
            seen.append(piece)
        line.write(chunk(b""))
        await line.drain()

    at.engine.answer = answer
    await at.ask(client)
    assert client.parts == [*seen, b""]
    assert client.has_all
    assert len(seen) == 20


async def test_no_request_follows_a_stream_over_its_connection(at: Rig) -> None:
    """llama.cpp closes it then; unless it was asked to, it says so to nobody."""
    over: set[Line] = set()

    async def answer(got: Got, line: Line) -> None:
        said = b"Connection: close\r\n" if got.header("Connection") == "close" else b""
        if line in over:
            line.transport.abort()
        elif got.json().get("stream"):
            over.add(line)
            line.write(
                OK + said + EVENTS.removeprefix(OK) + chunk(b"data: [DONE]\n\n") + chunk(b"")
            )
        else:
            await says({"choices": []})(got, line)

    at.engine.answer = answer
    for is_stream in (True, False, True, True, False, False):
        assert (await at.ask(at.client({"stream": is_stream}))).status == 200
    assert len(at.engine.got) == 6


async def test_a_slot_serves_from_before_the_engine_is_asked_until_the_answer_is_over(
    at: Rig,
) -> None:
    states = []

    async def answer(got: Got, line: Line) -> None:
        states.append(at.state())
        line.write(EVENTS + chunk(b"data: 1\n\n"))
        await line.drain()
        states.append(at.state())
        line.write(chunk(b""))

    at.engine.answer = answer
    await at.ask(at.client({"stream": True}))
    assert states == [SlotState.SERVING, SlotState.SERVING]
    await at.is_released()


@pytest.mark.parametrize("status", ["400 Bad Request", "422 No", "500 Oh", "503 Busy"])
async def test_a_refusal_of_the_engine_is_the_client_s_to_read(at: Rig, status: str) -> None:
    at.engine.answer = says({"error": {"message": "context too long"}}, status)
    client = await at.ask(at.client())
    assert client.status == int(status[:3])
    assert json.loads(b"".join(client.parts)) == {"error": {"message": "context too long"}}


async def test_a_long_refusal_is_passed_on_whole(at: Rig) -> None:
    at.engine.answer = says({"error": "x" * 300_000}, "500 Oh")
    client = await at.ask(at.client())
    assert json.loads(b"".join(client.parts)) == {"error": "x" * 300_000}


@pytest.mark.parametrize("status", ["401 No", "302 Found\r\nLocation: http://elsewhere"])
async def test_what_only_hal0_could_do_something_about_is_no_client_s(at: Rig, status: str) -> None:
    at.engine.answer = says({"error": "Invalid or missing API key"}, status)
    with pytest.raises((EngineUnauthorized, EngineBadAnswer)):
        await at.ask(at.client({"stream": True}))
    await at.is_released()


async def test_an_empty_answer_is_one(at: Rig) -> None:
    async def answer(got: Got, line: Line) -> None:
        line.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    at.engine.answer = answer
    client = await at.ask(at.client())
    assert (client.status, client.parts, client.has_all) == (204, [b""], True)


async def test_how_fast_a_slot_answered_is_in_its_row_and_a_refusal_counts_for_nothing(
    at: Rig,
) -> None:
    for refusal in ("no", "no" * 100_000):
        at.engine.answer = says({"error": {"message": refusal}}, "400 No")
        await at.ask(at.client())
    await at.is_released()
    assert speeds_of(at) == []
    at.engine.answer = says({"timings": {"predicted_per_second": 12.5}})
    await at.ask(at.client())
    await at.until(lambda: speeds_of(at) == [(1, 12.5)])


def speeds_of(at: Rig) -> list[tuple[int, float]]:
    with at.db.read() as tx:
        rows = tx.execute(select(speeds.c.requests, speeds.c.tokens_per_s))
        return [(row.requests, row.tokens_per_s) for row in rows]


async def test_a_body_that_is_compressed_is_refused(at: Rig) -> None:
    with pytest.raises(NotJsonType, match="sent as gzip"):
        await at.ask(at.client(headers=[(b"content-encoding", b"GZIP")]))
    assert at.engine.got == []
