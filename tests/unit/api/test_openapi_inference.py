"""The OpenAPI document against inference: what hal0 reads and says itself, and who else may speak.

Tests of the dispatcher look at each refusal of theirs (`tests/unit/dispatcher/rig.py`).
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from hal0.db import Database
from hal0.dispatcher.routing import ROUTES
from hal0.settings import Settings
from tests.documented import document_of
from tests.rows import make_model, make_slot

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
FORM = "/v1/audio/transcriptions"
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody waits for a model, and no body is large."""
    return settings.model_copy(update={"wake_timeout_s": 0.0, "body_limit_bytes": 1000})


@pytest.fixture
async def client(app: Starlette, api: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that serves inference; each answer must be as it is told."""
    pulse = app.state.pulse
    pulse.look()
    pulse.start()
    try:
        async with app.router.lifespan_context(app):
            yield api
    finally:
        pulse.end()


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_is_told_as_its_type_with_the_model_and_whatever_an_engine_takes(
    app: Starlette, path: str
) -> None:
    body = document_of(app).tree["paths"][path]["post"]["requestBody"]
    assert body["required"]
    assert [*body["content"]] == [ROUTES[path].takes]
    schema = body["content"][ROUTES[path].takes]["schema"]
    assert schema["required"] == ["model"]
    assert schema["additionalProperties"] is True


@pytest.mark.parametrize("path", ROUTES)
def test_any_answer_of_an_engine_is_told_of(app: Starlette, path: str) -> None:
    document = document_of(app)
    request = httpx.Request("POST", f"http://h{path}")
    engines = {"X-Request-ID": "1", "Content-Type": "application/vnd.engine"}
    for status in (200, 206, 400, 404, 418, 429, 503, 529):
        document.check(httpx.Response(status, headers=engines, request=request))


@pytest.mark.parametrize("path", ROUTES)
def test_what_hal0_itself_says_is_checked_to_the_code(app: Starlette, path: str) -> None:
    document = document_of(app)
    problem = {"type": "/problems/slot.exists", "title": "t", "status": 409, "detail": "d"}
    problem |= {"instance": path, "code": "slot.exists", "evidence": {}}
    answer = httpx.Response(
        409,
        headers={"X-Request-ID": "1", "Content-Type": "application/problem+json"},
        content=json.dumps(problem),
        request=httpx.Request("POST", f"http://h{path}"),
    )
    with pytest.raises(ValueError, match=r"slot\.exists"):
        document.check(answer)


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("request.not_json", CHAT, {"content": b"{"}),
    ("request.media_type", CHAT, {"content": b"a", "headers": {"Content-Type": "text/plain"}}),
    ("request.media_type", FORM, {"json": {"model": "chat"}}),
    ("request.invalid", CHAT, {"json": {}}),
    ("request.invalid", FORM, {"content": b"--b--", "headers": BOUNDARY}),
    ("request.too_large", CHAT, {"json": {"model": "chat", "prompt": "a" * 1000}}),
    ("model.not_found", CHAT, {"json": {"model": "nobody"}}),
    ("model.ambiguous", CHAT, {"json": {"model": "tiny"}}),
    ("slot.no_model", CHAT, {"json": {"model": "empty"}}),
    ("slot.unloaded", CHAT, {"json": {"model": "asleep"}}),
    ("slot.model_taken", CHAT, {"json": {"model": "one"}}),
    ("slot.loading", CHAT, {"json": {"model": "spare"}}),
    ("auth.bad_origin", CHAT, {"json": {}, "headers": {"Origin": "http://elsewhere"}}),
]


@pytest.mark.parametrize(("code", "path", "request_"), REFUSED)
async def test_a_refusal_is_as_told(
    client: httpx.AsyncClient, db: Database, code: str, path: str, request_: dict[str, Any]
) -> None:
    for model in ("tiny", "other", "free"):
        make_model(db, model)
    for name, wanted in (("one", "tiny"), ("two", "tiny"), ("spare", "free"), ("empty", None)):
        make_slot(db, name, wanted)
    make_slot(db, "asleep", "other", wake="never")
    assert (await client.post(path, **request_)).json()["code"] == code
