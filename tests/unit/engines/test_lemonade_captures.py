"""The adapter understands every answer that was captured from a real lemond."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from hal0.engines.base import EngineModel, LoadedModel
from hal0.engines.lemonade import LemonadeEngine
from hal0.errors import EngineRefused, EngineUnauthorized
from tests.integration.lemonade_contract.wire import CAPTURES

ANSWERS = {
    number: capture["response"]
    for number, capture in CAPTURES.items()
    if isinstance(capture["response"].get("body"), dict)
}
HEALTHS = [number for number, answer in ANSWERS.items() if "all_models_loaded" in answer["body"]]
ERRORS = [number for number, answer in ANSWERS.items() if "error" in answer["body"]]
UNLOADS = [number for number in ANSWERS if CAPTURES[number]["request"]["path"] == "/v1/unload"]
MODELS = [
    number
    for number, answer in ANSWERS.items()
    if CAPTURES[number]["request"]["path"].startswith("/v1/models/")
    and answer["body"].get("object") == "model"
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def answering(number: str) -> AsyncIterator[LemonadeEngine]:
    captured = ANSWERS[number]
    answer = httpx.Response(captured["status"], json=captured["body"])
    engine = LemonadeEngine("http://engine.test", None, httpx.MockTransport(lambda _: answer))
    yield engine
    await engine.close()


def error_in(number: str) -> tuple[str, str | None]:
    error: Any = ANSWERS[number]["body"]["error"]
    if isinstance(error, str):
        return error, None
    code = error.get("code")
    return error["message"], None if code is None else str(code)


@pytest.mark.anyio
@pytest.mark.parametrize("number", HEALTHS)
async def test_every_health_is_known_in_full(number: str) -> None:
    body = ANSWERS[number]["body"]
    async with answering(number) as engine:
        health = await engine.health()
    limit = body["max_models"]["llm"]
    assert health.max_models == (None if limit == -1 else limit)
    assert health.models == tuple(
        LoadedModel(
            name=entry["model_name"],
            checkpoint=entry["checkpoint"],
            backend_url=entry["backend_url"],
            pid=entry["pid"],
            last_use=str(entry["last_use"]),
            busy=entry["is_busy"],
            options=entry["recipe_options"],
            type=entry["type"],
        )
        for entry in body["all_models_loaded"]
    )


@pytest.mark.anyio
@pytest.mark.parametrize("number", ERRORS)
async def test_every_error_gives_its_message_and_code(number: str) -> None:
    status = ANSWERS[number]["status"]
    message, code = error_in(number)
    async with answering(number) as engine:
        with pytest.raises(EngineUnauthorized if status == 401 else EngineRefused) as caught:
            await engine.load("ga", {}, lambda: None)
    assert message in caught.value.detail
    assert caught.value.evidence["http_status"] == status
    assert caught.value.evidence["engine_code"] == code


@pytest.mark.anyio
@pytest.mark.parametrize("number", UNLOADS)
async def test_every_unload_is_done_or_says_that_there_was_nothing_to_do(number: str) -> None:
    async with answering(number) as engine:
        was_loaded = await engine.unload("ga", lambda: None)
    assert was_loaded is (ANSWERS[number]["status"] == 200)


@pytest.mark.anyio
@pytest.mark.parametrize("number", MODELS)
async def test_every_model_is_resolved_to_its_public_name_and_file(number: str) -> None:
    body = ANSWERS[number]["body"]
    async with answering(number) as engine:
        model = await engine.resolve("user.some")
    assert model == EngineModel(body["id"], body["checkpoint"], body["downloaded"])


def test_all_kinds_of_captures_are_there() -> None:
    shapes = {type(ANSWERS[number]["body"]["error"]) for number in ERRORS}
    assert shapes == {str, dict}
    assert any(error_in(number)[1] == "501" for number in ERRORS)
    assert min(len(HEALTHS), len(ERRORS), len(MODELS)) >= 4
