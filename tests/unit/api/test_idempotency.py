"""What becomes of a POST that comes twice with one `Idempotency-Key`."""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest
from freezegun import freeze_time

from hal0.api.auth import TABLE
from hal0.api.idempotency import KEPT, Once, Reply, digest_of, done_once
from hal0.db import Database
from hal0.errors import ChecksumMismatch, KeyReused
from hal0.jobs.bell import Bell
from hal0.jobs.incidents import record
from hal0.settings import Settings
from hal0.states import IncidentKind
from hal0.tables import idempotency_keys
from tests.rows import ask_load, contents, fail_next, make_model, make_slot, run_load

pytestmark = pytest.mark.anyio
SAID: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "/api/v1/slots": ("/api/v1/slots", {"name": "code", "priority": 3}),
    "/api/v1/slots/{slot}/load": ("/api/v1/slots/chat/load", {"rehash": True}),
    "/api/v1/slots/{slot}/unload": ("/api/v1/slots/chat/unload", {"force": True}),
    "/api/v1/slots/{slot}/validate": ("/api/v1/slots/chat/validate", {}),
    "/api/v1/slots/{slot}/pull": ("/api/v1/slots/chat/pull", {}),
    "/api/v1/jobs/retry": ("/api/v1/jobs/retry", {"filter": {"slot": "broken"}}),
    "/api/v1/jobs/cancel": ("/api/v1/jobs/cancel", {"filter": {"slot": "waiting"}}),
    "/api/v1/jobs/{job_id:int}/retry": ("/api/v1/jobs/5/retry", {}),
    "/api/v1/jobs/{job_id:int}/cancel": ("/api/v1/jobs/9/cancel", {}),
    "/api/v1/incidents/{incident_id:int}/ack": ("/api/v1/incidents/1/ack", {}),
    "/api/v1/models": ("/api/v1/models", {"name": "m", "source": "/data/m.gguf"}),
    "/api/v1/engines": (
        "/api/v1/engines",
        {"name": "big", "kind": "lemonade", "url": "http://127.0.0.1:9"},
    ),
    "/api/v1/probe": ("/api/v1/probe", {}),
}
"""For every route that takes a POST, a request that changes something in `furnished`."""


def key(text: str = "key-1") -> dict[str, str]:
    return {"Idempotency-Key": text}


@pytest.fixture
def furnished(db: Database) -> Database:
    """`chat` is loaded by jobs 1 to 4, job 5 of `broken` failed, 9 of `waiting` is queued."""
    for slot in ("chat", "broken", "waiting"):
        make_model(db, f"of-{slot}")
        make_slot(db, slot, f"of-{slot}")
    ask_load(db, "chat")
    run_load(db)
    ask_load(db, "broken")
    fail_next(db, ChecksumMismatch("bad bytes"))
    ask_load(db, "waiting")
    with db.write() as tx:
        record(tx, 1, IncidentKind.ENGINE_RESTARTED, "the engine is another process")
    return db


def rows(db: Database) -> dict[str, list[Any]]:
    """Return all that the database holds, keys aside."""
    return contents(db.path, without="idempotency_keys")


def kept(db: Database) -> list[str]:
    with db.read() as tx:
        return sorted(row.key for row in tx.execute(idempotency_keys.select()))


def test_a_request_is_known_for_every_route_that_takes_a_post() -> None:
    with_secrets = {"/api/v1/tokens"}  # takes no key: tests/unit/api/test_tokens.py
    without_change = {"/api/v1/starters/{starter}/look"}
    changing = {
        path
        for method, path in TABLE
        if method == "POST"
        # inference changes nothing here, and forms of the page carry no key
        and not path.startswith(("/v1/", "/page/", "/session"))
    }
    assert set(SAID) | with_secrets | without_change == changing


@pytest.mark.parametrize("route", SAID)
async def test_a_repeated_post_is_answered_as_before_and_done_once(
    api: httpx.AsyncClient, furnished: Database, route: str
) -> None:
    path, body = SAID[route]
    before = rows(furnished)
    first = await api.post(path, json=body, headers=key())
    assert first.is_success, first.text
    assert "idempotent-replayed" not in first.headers
    done = rows(furnished)
    assert done != before
    again = await api.post(path, json=body, headers=key())
    assert rows(furnished) == done
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers.get("location") == first.headers.get("location")
    assert again.headers["idempotent-replayed"] == "true"
    assert kept(furnished) == ["key-1"]


@pytest.mark.parametrize("route", SAID)
async def test_a_key_means_one_request_and_no_other(
    api: httpx.AsyncClient, furnished: Database, route: str
) -> None:
    other, body = SAID["/api/v1/models" if route != "/api/v1/models" else "/api/v1/engines"]
    assert (await api.post(other, json=body, headers=key())).is_success
    before = rows(furnished)
    path, body = SAID[route]
    refused = await api.post(path, json=body, headers=key())
    assert (refused.status_code, refused.json()["code"]) == (
        422,
        "request.idempotency_key_reused",
    )
    assert "'key-1'" in refused.json()["detail"]
    assert "new key" in refused.json()["detail"]
    assert rows(furnished) == before


@pytest.mark.parametrize("bad", ["", "x" * 256, "two\twords", "schlüssel", "a\x7f"])
@pytest.mark.parametrize("route", SAID)
async def test_what_is_no_key_is_refused_by_the_name_of_its_header(
    api: httpx.AsyncClient, furnished: Database, route: str, bad: str
) -> None:
    path, body = SAID[route]
    before = rows(furnished)
    refused = await api.post(path, json=body, headers=[(b"Idempotency-Key", bad.encode())])
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert refused.json()["evidence"]["fields"][0]["field"] == "Idempotency-Key"
    assert "Idempotency-Key: takes one key of 1 to 255" in refused.json()["detail"]
    assert rows(furnished) == before


async def test_two_keys_are_none(api: httpx.AsyncClient, db: Database) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    refused = await api.post("/api/v1/slots", json={"name": "chat"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert kept(db) == []


async def test_a_key_may_be_any_printable_ascii_up_to_255(
    api: httpx.AsyncClient, db: Database
) -> None:
    keys = ["~", '"8e03978e-40d5"', "a b, c", "k" * 255]
    for number, one in enumerate(keys):
        made = await api.post("/api/v1/slots", json={"name": f"s{number}"}, headers=key(one))
        assert made.status_code == 201
    assert kept(db) == sorted(keys)


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ('{"name": "a", "priority": 1}', '{ "priority":1,\n"name":"\\u0061" }', True),
        ('{"name": "a", "options": {}}', '{"options": {}, "name": "a"}', True),
        ('{"name": "a"}', '{"name": "b"}', False),
        ('{"name": "a"}', '{"name": "a", "priority": 0}', False),
    ],
)
async def test_bodies_are_compared_by_what_they_say(
    api: httpx.AsyncClient, first: str, second: str, is_same: bool
) -> None:
    assert (await api.post("/api/v1/slots", content=first, headers=key())).status_code == 201
    again = await api.post("/api/v1/slots", content=second, headers=key())
    assert again.status_code == (201 if is_same else 422)


async def test_no_body_says_the_same_as_an_empty_object(
    api: httpx.AsyncClient, furnished: Database
) -> None:
    await api.post("/api/v1/slots/chat/validate", headers=key())
    again = await api.post("/api/v1/slots/chat/validate", json={}, headers=key())
    assert again.headers["idempotent-replayed"] == "true"


async def test_the_same_body_for_another_slot_is_another_request(
    api: httpx.AsyncClient, furnished: Database
) -> None:
    assert (await api.post("/api/v1/slots/chat/unload", headers=key())).status_code == 202
    refused = await api.post("/api/v1/slots/waiting/unload", headers=key())
    assert refused.json()["code"] == "request.idempotency_key_reused"


async def test_a_refused_request_uses_up_no_key(api: httpx.AsyncClient, db: Database) -> None:
    body = {"name": "chat", "model": "tiny"}
    refused = await api.post("/api/v1/slots", json=body, headers=key())
    assert (refused.status_code, kept(db)) == (404, [])
    make_model(db)
    made = await api.post("/api/v1/slots", json=body, headers=key())
    assert (made.status_code, "idempotent-replayed" in made.headers) == (201, False)


async def test_a_load_that_comes_again_after_an_unload_undoes_nothing(
    api: httpx.AsyncClient, furnished: Database, settings: Settings
) -> None:
    load = {"json": {"rehash": True}, "headers": key()}
    first = await api.post("/api/v1/slots/chat/load", **load)  # type: ignore[arg-type]
    await api.post("/api/v1/slots/chat/unload")
    before = rows(furnished)
    bell = Bell(settings.run, "worker-1")
    try:
        late = await api.post("/api/v1/slots/chat/load", **load)  # type: ignore[arg-type]
        assert not bell.wait(0.05)
    finally:
        bell.close()
    assert (late.status_code, late.json()) == (202, first.json())
    assert rows(furnished) == before
    assert (await api.get("/api/v1/slots/chat")).json()["desired"] == "unloaded"


async def test_a_repeated_order_waits_for_the_chain_of_the_first(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    first = await api.post("/api/v1/slots/chat/load", headers=key())
    waiting = {**key(), "Prefer": "wait=1"}
    in_vain = await api.post("/api/v1/slots/chat/load", headers=waiting)
    assert (in_vain.status_code, in_vain.json()) == (202, first.json())
    assert in_vain.headers["preference-applied"] == "wait=1"
    run_load(db)
    answer = await api.post("/api/v1/slots/chat/load", headers=waiting)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")
    assert (answer.json()["chain_id"], answer.json()["state"]) == (
        first.json()["chain_id"],
        "succeeded",
    )
    assert answer.headers["location"] == first.headers["location"]
    assert (await api.post("/api/v1/slots/chat/load", headers=key())).json() == first.json()


async def test_of_many_requests_at_once_with_one_key_one_is_done(
    api: httpx.AsyncClient, db: Database
) -> None:
    answers: list[httpx.Response] = []

    async def post() -> None:
        answers.append(await api.post("/api/v1/slots", json={"name": "chat"}, headers=key()))

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(post)
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}
    replayed = Counter(answer.headers.get("idempotent-replayed") for answer in answers)
    assert replayed == {None: 1, "true": 11}


async def test_a_key_is_forgotten_after_a_day_and_its_row_goes_with_the_next_key(
    api: httpx.AsyncClient, db: Database
) -> None:
    with freeze_time("2026-11-01 12:00:00") as now:
        for number in range(3):
            body = {"name": f"old-{number}"}
            await api.post("/api/v1/slots", json=body, headers=key(f"old-{number}"))
        now.tick(KEPT - timedelta(seconds=1))
        again = await api.post("/api/v1/slots", json={"name": "old-0"}, headers=key("old-0"))
        assert again.headers["idempotent-replayed"] == "true"
        await api.post("/api/v1/slots", json={"name": "new"}, headers=key("new"))
        assert kept(db) == ["new", "old-0", "old-1", "old-2"]
        now.tick(timedelta(seconds=1))
        other = await api.post("/api/v1/slots", json={"name": "later"}, headers=key("old-1"))
        assert (other.status_code, "idempotent-replayed" in other.headers) == (201, False)
        assert kept(db) == ["new", "old-1"]


def test_the_rows_to_forget_are_found_by_their_index(db: Database) -> None:
    with closing(sqlite3.connect(db.path)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN DELETE FROM idempotency_keys WHERE at <= '2026-11-01'"
        ).fetchall()
    assert "ix_idempotency_keys_at" in plan[0][3]


def test_a_key_belongs_to_who_sent_it(db: Database) -> None:
    """There are no tokens yet, so over HTTP there is one actor."""

    def ask(actor: str, said: str) -> Reply:
        once = Once(actor, "key-1", digest_of("POST", "/api/v1/slots", {"name": said}))
        with db.write() as tx:
            return done_once(tx, once, lambda _: Reply({"by": actor}, 201))

    assert ask("one", "a") == Reply({"by": "one"}, 201)
    assert ask("two", "b") == Reply({"by": "two"}, 201)
    assert ask("one", "a") == Reply({"by": "one"}, 201, is_replayed=True)
    with pytest.raises(KeyReused):
        ask("two", "a")


async def test_a_key_on_another_method_is_not_looked_at(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slot(db, "chat")
    for priority in (1, 2):
        body = {"priority": priority}
        changed = await api.patch("/api/v1/slots/chat", json=body, headers=key())
        assert changed.json()["priority"] == priority
    assert (await api.delete("/api/v1/slots/chat", headers=key())).status_code == 204
    assert kept(db) == []
