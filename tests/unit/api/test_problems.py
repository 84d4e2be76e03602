"""What a caller is told when something goes wrong."""

import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import event, exc
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hal0.api.app import create_app
from hal0.api.problems import as_problem, response_for
from hal0.db import Database
from hal0.errors import Hal0Error, InvalidRequest, SlotParked, SlotUnloaded, tree
from hal0.settings import Settings
from tests.fronts import behind_front
from tests.rows import contents

ERRORS = sorted(tree(), key=lambda kind: kind.__name__)
FIELDS = {"type", "title", "status", "detail", "instance", "code", "evidence"}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_becomes_a_problem_of_its_code_and_status(
    kind: type[Hal0Error],
) -> None:
    error = kind("what happened", evidence={"slot": "chat"}, retry_after_s=2.1)
    response = response_for(error, "/api/v1/slots/chat")
    body = json.loads(bytes(response.body))
    assert set(body) == FIELDS
    assert response.media_type == "application/problem+json"
    assert (response.status_code, body["status"]) == (kind.status, kind.status)
    assert (body["code"], body["type"]) == (kind.code, f"/problems/{kind.code}")
    assert (body["detail"], body["evidence"]) == ("what happened", {"slot": "chat"})
    assert body["instance"] == "/api/v1/slots/chat"
    assert body["title"]
    assert not body["title"].endswith(".")
    assert ("retry-after" in response.headers) == (kind.status in {429, 503})
    assert response.headers.get("retry-after", "3") == "3"


@pytest.mark.parametrize(("asked", "told"), [(None, "1"), (0.0, "1"), (0.2, "1"), (7.01, "8")])
def test_retry_after_is_whole_seconds_rounded_up_and_at_least_one(
    asked: float | None, told: str
) -> None:
    from hal0.errors import DatabaseLocked

    response = response_for(DatabaseLocked("busy", retry_after_s=asked), "/")
    assert response.headers["retry-after"] == told


@pytest.mark.parametrize("kind", [SlotUnloaded, SlotParked])
def test_what_does_not_pass_by_waiting_says_when_to_come_again_only_if_it_knows(
    kind: type[Hal0Error],
) -> None:
    assert "retry-after" not in response_for(kind("no"), "/v1/completions").headers
    told = response_for(kind("no", retry_after_s=7.01), "/v1/completions")
    assert told.headers["retry-after"] == "8"


def test_a_problem_names_the_job_that_it_is_about() -> None:
    assert as_problem(InvalidRequest("no", job_id=7), "/")["job_id"] == 7


def _raising(error: Exception, db: Database) -> httpx.AsyncClient:
    async def endpoint(request: Request) -> Response:
        raise error

    app = behind_front([Route("/livez", endpoint)], db)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("secret at /home/someone"),
        exc.IntegrityError("INSERT INTO secret", {"token": "secret"}, ValueError("secret")),
    ],
)
async def test_a_bug_is_logged_with_its_traceback_and_told_without_details(
    error: Exception, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        async with _raising(error, db) as client:
            answer = await client.get("/livez", headers={"X-Request-ID": "find-me"})
    assert (answer.status_code, answer.json()["code"]) == (500, "hal0.internal")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "find-me"
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].__dict__["request_id"] == "find-me"


@pytest.mark.anyio
async def test_a_database_that_another_process_holds_is_a_503_and_reading_goes_on(
    settings: Settings, db: Database
) -> None:
    hasty = Database(db.path, busy_timeout_s=0.1)
    app = create_app(settings, hasty)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        with db.write():
            refused = await client.post("/api/v1/slots", json={"name": "chat"})
            assert (await client.get("/api/v1/slots")).json()["items"] == []
        assert (refused.status_code, refused.json()["code"]) == (503, "db.locked")
        assert refused.headers["retry-after"] == "1"
        assert (await client.post("/api/v1/slots", json={"name": "chat"})).status_code == 201
    hasty.close()


@pytest.mark.anyio
async def test_a_disk_without_room_is_a_507_that_changes_nothing_and_passes(
    settings: Settings, db: Database
) -> None:
    """As much room as the file has now: SQLite makes no max_page_count smaller than that."""
    cramped = Database(db.path)
    event.listen(
        cramped._writers, "connect", lambda line, _: line.execute("PRAGMA max_page_count = 1")
    )
    files = [{"role": "shard", "source": f"/data/{'x' * 200}/{n}.gguf"} for n in range(500)]
    body = {"name": "big", "files": files}
    before = contents(db.path)
    for database, status in ((cramped, 507), (db, 201)):
        transport = httpx.ASGITransport(create_app(settings, database))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post(
                "/api/v1/models", json=body, headers={"Idempotency-Key": "key-1"}
            )
            assert answer.status_code == status
            assert "idempotent-replayed" not in answer.headers
        if status == 507:
            assert answer.json()["code"] == "db.full"
            assert f"no room for {db.path}: " in answer.json()["detail"]
            assert answer.json()["detail"].endswith("; make room on its disk")
            assert contents(db.path) == before
    cramped.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b"[" * 100_000,
        b'{"priority": ' + b"9" * 5000 + b"}",
    ],
    ids=repr,
)
async def test_what_is_no_json_object_is_refused(api: httpx.AsyncClient, body: bytes) -> None:
    refused = await api.post("/api/v1/slots", content=body)
    assert (refused.status_code, refused.json()["code"]) == (400, "request.not_json")


@pytest.mark.anyio
async def test_a_body_of_more_than_a_mebibyte_is_refused_announced_or_not(
    api: httpx.AsyncClient,
) -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield b" " * 65536

    for content in (b" " * (2**20 + 1), unannounced()):
        refused = await api.post("/api/v1/slots", content=content)
        assert (refused.status_code, refused.json()["code"]) == (413, "request.too_large")
    fits = await api.post("/api/v1/slots", content=b" " * (2**20 - 20) + b'{"name": "chat"}')
    assert fits.status_code == 201


@pytest.mark.anyio
async def test_a_request_id_is_kept_if_it_is_printable_else_made(api: httpx.AsyncClient) -> None:
    kept = await api.get("/livez", headers={"X-Request-ID": "a request, 1"})
    assert kept.headers["x-request-id"] == "a request, 1"
    for bad in ("", "x" * 129, "tab\there", "ü"):
        made = await api.get("/livez", headers=[(b"X-Request-ID", bad.encode())])
        assert len(made.headers["x-request-id"]) == 32
    missing = await api.get("/nothing", headers={"X-Request-ID": "mine"})
    assert missing.headers["x-request-id"] == "mine"
