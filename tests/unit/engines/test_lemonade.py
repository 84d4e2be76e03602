"""The adapter to Lemonade's wire, against answers of every kind and a socket that misbehaves."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from hal0.engines.base import EngineModel, LoadedModel
from hal0.engines.http import PROBE_S
from hal0.engines.lemonade import LemonadeEngine
from hal0.errors import (
    EngineBadAnswer,
    EngineRefused,
    EngineUnauthorized,
    EngineUnreachable,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def nothing() -> None:
    """An `on_sent` that nobody waits for."""


@asynccontextmanager
async def answering(
    body: object = None, status: int = 200, content: bytes | None = None
) -> AsyncIterator[tuple[LemonadeEngine, list[httpx.Request]]]:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raw = json.dumps(body).encode() if content is None else content
        return httpx.Response(status, content=raw)

    engine = LemonadeEngine("http://engine.test:1", "k1", httpx.MockTransport(answer))
    yield engine, asked
    await engine.close()


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def socket_that(talks: Talk) -> AsyncIterator[LemonadeEngine]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talks(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    engine = LemonadeEngine(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield engine
    finally:
        await engine.close()
        server.close()


async def test_load_sends_every_option_and_the_key() -> None:
    async with answering({"status": "success"}) as (engine, asked):
        await engine.load("ga", {"ctx_size": 512}, nothing)
    assert asked[0].url.path == "/v1/load"
    assert asked[0].headers["Authorization"] == "Bearer k1"
    sent = json.loads(asked[0].content)
    assert sent == {
        "model_name": "ga",
        "ctx_size": 512,
        "llamacpp_backend": None,
        "llamacpp_args": "",
        "auto_evict": False,
        "evict_idle_timeout": None,
        "downsize_idle_timeout": None,
        "evict_weight_factor": None,
        "llamacpp_device": None,
        "merge_args": None,
    }


@pytest.mark.parametrize("name", ["", "  ", "\t\n", "a\x00b", "a\nb", "\ud800", None, 7, [], {}])
async def test_a_name_that_could_mean_all_models_is_never_sent(name: Any) -> None:
    async with answering({"status": "success"}) as (engine, asked):
        with pytest.raises(ValueError, match="names no model"):
            await engine.unload(name, nothing)
        with pytest.raises(ValueError, match="names no model"):
            await engine.load(name, {}, nothing)
    assert asked == []


async def test_bad_options_are_never_sent() -> None:
    async with answering({"status": "success"}) as (engine, asked):
        with pytest.raises(ValueError, match="llamacpp_args"):
            await engine.load("ga", {"llamacpp_args": "--port 1"}, nothing)
    assert asked == []


async def test_unload_of_what_is_not_loaded_is_false() -> None:
    async with answering({"error": "Model not loaded: ga"}, 404) as (engine, _):
        assert await engine.unload("ga", nothing) is False
    async with answering({"status": "success"}) as (engine, _):
        assert await engine.unload("ga", nothing) is True


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": "no room"}, "no room", None),
        ({"error": {"message": "no room", "code": "full", "type": "x"}}, "no room", "full"),
        ({"error": {"message": "no room", "status_code": 501, "type": "x"}}, "no room", None),
        ("text only", "text only", None),
        ({"error": None}, "None", None),
        ([], "[]", None),
    ],
)
async def test_every_error_shape_is_read(body: object, message: str, code: str | None) -> None:
    async with answering(body, 500) as (engine, _):
        with pytest.raises(EngineRefused, match="500") as caught:
            await engine.load("ga", {}, nothing)
    assert message in caught.value.detail
    assert caught.value.evidence["engine_code"] == code
    assert caught.value.evidence["http_status"] == 500
    assert caught.value.detail.endswith("; the engine's log has more")


async def test_401_is_about_the_key() -> None:
    async with answering({"error": "Invalid or missing API key"}, 401) as (engine, _):
        for call in (engine.health(), engine.load("ga", {}, nothing), engine.unload("ga", nothing)):
            with pytest.raises(
                EngineUnauthorized, match="`hal0 doctor` says what is wrong with it"
            ):
                await call


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"1", b"{", b"\xff", b"[" * 200_000])
async def test_a_good_status_with_nonsense_is_a_bad_answer(content: bytes) -> None:
    async with answering(content=content) as (engine, _):
        with pytest.raises(EngineBadAnswer):
            await engine.health()
        with pytest.raises(EngineBadAnswer):
            await engine.load("ga", {}, nothing)


@pytest.mark.parametrize("body", [{}, {"all_models_loaded": None}, {"all_models_loaded": {"a": 1}}])
async def test_no_list_is_unknown_not_empty(body: dict[str, Any]) -> None:
    async with answering(body) as (engine, _):
        assert (await engine.health()).models is None


@pytest.mark.parametrize("entry", [None, 1, "ga", [], {}, {"model_name": ""}, {"model_name": 1}])
async def test_one_malformed_entry_makes_the_list_unknown(entry: object) -> None:
    body = {"all_models_loaded": [{"model_name": "gb"}, entry]}
    async with answering(body) as (engine, _):
        assert (await engine.health()).models is None


@pytest.mark.parametrize("key", ["all_models_loaded", "loaded"])
async def test_a_full_entry_is_read(key: str) -> None:
    entry = {
        "model_name": "ga",
        "checkpoint": "/m/ga.gguf",
        "backend_url": "http://127.0.0.1:8001/v1",
        "pid": 7,
        "last_use": 12,
        "is_busy": False,
        "recipe_options": {"ctx_size": 512},
        "type": "llm",
    }
    async with answering({key: [entry], "max_models": {"llm": 2}}) as (engine, _):
        health = await engine.health()
    assert health.max_models == 2
    assert health.process is None  # another machine's
    assert health.models == (
        LoadedModel(
            "ga", "/m/ga.gguf", "http://127.0.0.1:8001/v1", 7, "12", False, {"ctx_size": 512}, "llm"
        ),
    )


@pytest.mark.parametrize(
    ("value", "read"),
    [(12, "12"), (12.5, "12.5"), (0, "0"), ("12", None), (True, None), (None, None)],
)
async def test_only_a_number_is_a_last_use(value: object, read: str | None) -> None:
    async with answering({"loaded": [{"model_name": "ga", "last_use": value}]}) as (engine, _):
        models = (await engine.health()).models
    assert models is not None
    assert models[0].last_use == read


@pytest.mark.parametrize("value", ["false", 0, None, []])
async def test_only_a_bool_says_whether_a_model_is_busy(value: object) -> None:
    async with answering({"loaded": [{"model_name": "ga", "is_busy": value}]}) as (engine, _):
        models = (await engine.health()).models
    assert models is not None
    assert models[0].busy is None


@pytest.mark.parametrize(
    "limits", [{"llm": -1}, {"llm": 0}, {"llm": "1"}, {"llm": True}, {}, None, 3]
)
async def test_no_limit_and_nonsense_are_no_limit(limits: object) -> None:
    async with answering({"loaded": [], "max_models": limits}) as (engine, _):
        health = await engine.health()
    assert health.max_models is None
    assert not health.is_full_of("llm")


async def test_each_type_is_counted_against_a_limit_of_its_own() -> None:
    loaded = [
        {"model_name": "ga", "type": "embedding"},
        {"model_name": "gb", "type": "transcription"},
        {"model_name": "gc", "type": None},
    ]
    limits = {"llm": 2, "embedding": 1, "transcription": -1, "image": 1}
    async with answering({"all_models_loaded": loaded, "max_models": limits}) as (engine, _):
        health = await engine.health()
    full = {kind: health.is_full_of(kind) for kind in (*limits, "tts")}
    assert [kind for kind, is_full in full.items() if is_full] == ["embedding"]
    more = [*loaded, {"model_name": "gd", "type": "llm"}]
    async with answering({"all_models_loaded": more, "max_models": limits}) as (engine, _):
        assert (await engine.health()).is_full_of(), "what has no type is a language model"


async def test_resolve_gives_public_name_and_main_file() -> None:
    body = {
        "id": "ga",
        "checkpoint": "/m/old",
        "checkpoints": {"main": "/m/ga.gguf"},
        "downloaded": True,
    }
    async with answering(body) as (engine, asked):
        assert await engine.resolve("extra.g/a b") == EngineModel("ga", "/m/ga.gguf", True)
    assert asked[0].url.raw_path == b"/v1/models/extra.g%2Fa%20b"
    async with answering({"id": "ga", "checkpoint": "/m/ga"}) as (engine, _):
        assert await engine.resolve("ga") == EngineModel("ga", "/m/ga", False)
    async with answering({"error": {"code": "model_not_found"}}, 404) as (engine, _):
        assert await engine.resolve("ga") is None
    async with answering({"checkpoint": "/m/ga"}) as (engine, _):
        with pytest.raises(EngineBadAnswer):
            await engine.resolve("ga")


async def test_a_refused_connection_was_not_sent() -> None:
    async with socket_that(lambda _, __: asyncio.sleep(0)) as gone:
        pass
    engine = LemonadeEngine(str(gone._url))
    sent: list[int] = []
    for call in (engine.load("ga", {}, lambda: sent.append(1)), engine.health()):
        with pytest.raises(EngineUnreachable):
            await call
    assert await engine.is_live() is False
    assert sent == []
    await engine.close()


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x", "http://", "http://[::1"])
async def test_an_address_that_is_none_is_unreachable(url: str) -> None:
    with pytest.raises(EngineUnreachable):
        await LemonadeEngine(url).health()


async def test_a_connection_that_breaks_after_sending_is_a_bad_answer() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")

    sent: list[int] = []
    async with socket_that(hang_up) as engine:
        with pytest.raises(EngineBadAnswer):
            await engine.load("ga", {}, lambda: sent.append(1))
    assert sent == [1]


async def test_on_sent_is_called_before_the_answer_and_once() -> None:
    has_sent = asyncio.Event()

    async def answer_when_told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        await has_sent.wait()
        body = b'{"status": "success"}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()

    times: list[int] = []

    def on_sent() -> None:
        times.append(1)
        has_sent.set()

    async with socket_that(answer_when_told) as engine:
        async with asyncio.timeout(5):
            await engine.load("ga", {}, on_sent)
    assert times == [1]


async def test_what_on_sent_raises_reaches_the_caller() -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    def lose() -> None:
        raise KeyError("claim lost")

    async with socket_that(never) as engine:
        with pytest.raises(KeyError):
            await engine.load("ga", {}, lose)


async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send header bytes one by one for ever: no timeout between two bytes ever passes."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_the_callers_clock_ends_a_load_that_dribbles() -> None:
    async with socket_that(dribble) as engine:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await engine.load("ga", {}, nothing)


@pytest.mark.slow
async def test_a_server_that_dribbles_is_not_live() -> None:
    async with socket_that(dribble) as engine, asyncio.timeout(PROBE_S + 3):
        assert await engine.is_live() is False


async def test_live_is_whatever_answers_without_a_server_error() -> None:
    for status, is_live in ((200, True), (404, True), (401, True), (503, False)):
        async with answering({}, status) as (engine, asked):
            assert await engine.is_live() is is_live
        assert asked[0].url.path == "/live"


async def test_a_backend_is_asked_at_its_own_health_without_the_key() -> None:
    model = LoadedModel("ga", backend_url="http://backend.test:8001/v1")
    for status, answers in ((200, True), (503, False), (500, False)):
        async with answering({}, status) as (engine, asked):
            assert await engine.answers(model) is answers
        assert str(asked[0].url) == "http://backend.test:8001/health"
        assert "Authorization" not in asked[0].headers


async def test_a_backend_that_cannot_be_asked_is_not_held_against_the_model() -> None:
    async with answering({}, 503) as (engine, asked):
        assert await engine.answers(LoadedModel("ga")) is True
        remote = LoadedModel("ga", backend_url="http://127.0.0.1:8001/v1")
        assert await engine.answers(remote) is True
    assert asked == []


async def test_a_backend_that_is_gone_does_not_answer() -> None:
    async with socket_that(lambda _, __: asyncio.sleep(0)) as gone:
        pass
    engine = LemonadeEngine("http://127.0.0.1:1")
    assert await engine.answers(LoadedModel("ga", backend_url=f"{gone._url}/v1")) is False
    await engine.close()
