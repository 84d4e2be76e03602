"""Who gets in where there are tokens: nobody without a valid one, and each as far as its role."""

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from freezegun import freeze_time
from starlette.applications import Starlette
from starlette.routing import Route

from hal0.access import tokens
from hal0.access.roles import GRANTED, Role
from hal0.api.app import create_app
from hal0.api.auth import TABLE
from hal0.api.callers import FORWARDED, WHAT_IS_NEEDED
from hal0.clock import utc_now
from hal0.db import Database
from hal0.settings import Settings
from tests.rows import make_model, make_slot

pytestmark = pytest.mark.anyio
OPEN = {"/livez", "/readyz"}
DOOR = {"/assets/{name}", "/session", "/session/end"}
"""What somebody needs who is not signed in yet: tests/unit/api/test_session.py."""
Make = Callable[..., dict[str, str]]


@pytest.fixture
def token(db: Database) -> Make:
    """Make a token; return the headers of who has it."""

    def make(role: str = "writer", name: str | None = None, **more: Any) -> dict[str, str]:
        with db.write() as tx:
            text = tokens.create(tx, name or role, Role.named(role), "local", **more)[1]
        return {"Authorization": f"Bearer {text}"}

    return make


def client_of(app: Starlette, base: str, address: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url=base, timeout=30)


def concrete(path: str) -> str:
    """Return a path that the route matches, of things that are not there."""
    return re.sub(r"{\w+}", "nope", re.sub(r"{\w+:int}", "999", path))


@pytest.mark.parametrize("role", [None, *GRANTED])
async def test_every_route_lets_in_whom_the_table_names_and_nobody_else(
    api: httpx.AsyncClient, app: Starlette, token: Make, role: str | None
) -> None:
    everybody = {name: token(name) for name in GRANTED}
    headers = {} if role is None else everybody[role]
    held = Role.ANYONE if role is None else Role.named(role)
    walked = 0
    for route in app.routes:
        assert isinstance(route, Route)
        if not route.include_in_schema:  # the page's: tests/unit/api/test_page.py
            continue
        for method in sorted(route.methods or ()):
            needed = TABLE["GET" if method == "HEAD" else method, route.path]
            if (method, route.path) == ("GET", "/api/v1/events") and held >= needed:
                continue  # it has no end: tests/acceptance/test_event_stream.py
            answer = await api.request(method, concrete(route.path), headers=headers)
            seen = (method, route.path, role, answer.status_code)
            if held >= needed:
                assert answer.status_code not in (401, 403, 429), seen
            elif role is None:
                assert answer.status_code == 401, seen
            else:
                assert answer.status_code == 403, seen
                if method != "HEAD":
                    problem = answer.json()
                    assert problem["code"] == "auth.forbidden"
                    assert f"needs the role {needed}" in problem["detail"]
                    assert problem["evidence"] == {"needed": str(needed), "role": role}
            walked += 1
    assert walked > len(TABLE) / 2
    assert {path for (_, path), needed in TABLE.items() if needed is Role.ANYONE} == OPEN | DOOR


WRONG: list[dict[str, str] | list[tuple[str, str]]] = [
    {"Authorization": "Bearer hal0_" + "a" * 43},
    {"Authorization": "Bearer"},
    {"Authorization": ""},
    {"Authorization": "Basic bG9jYWw6"},
    {"Authorization": "Bearer ci"},
    {"Authorization": "Bearer " + "x" * 8000},
    [("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
]


@pytest.mark.parametrize("headers", WRONG, ids=range(len(WRONG)))
async def test_what_is_no_valid_token_is_answered_as_none_at_all(
    api: httpx.AsyncClient, token: Make, headers: Any
) -> None:
    token("writer", "ci")
    for path in ("/api/v1/slots", "/nothing", "/api/v1/slots/x/load"):
        none = await api.get(path)
        wrong = await api.get(path, headers=headers)
        assert wrong.status_code == none.status_code == 401
        assert wrong.json() == none.json()
        assert wrong.json()["detail"] == WHAT_IS_NEEDED
        assert wrong.headers["www-authenticate"] == none.headers["www-authenticate"] == "Bearer"


async def test_an_expired_a_revoked_and_an_unknown_token_are_told_the_same(
    api: httpx.AsyncClient, db: Database, token: Make
) -> None:
    with freeze_time(utc_now() - timedelta(hours=1)):
        expired = token("writer", "expired", expires_in_s=60)
    revoked = token("writer", "revoked")
    with db.write() as tx:
        tokens.revoke(tx, "revoked", "local")
    unknown = {"Authorization": "Bearer hal0_" + "b" * 43}
    answers = [await api.get("/api/v1/meta", headers=one) for one in (expired, revoked, unknown)]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert len({answer.text for answer in answers}) == 1
    assert len({tuple(sorted(answer.headers)) for answer in answers}) == 1


async def test_a_valid_token_may_be_sent_as_the_standard_lets_it(
    api: httpx.AsyncClient, token: Make
) -> None:
    text = token()["Authorization"].removeprefix("Bearer ")
    for value in (f"Bearer {text}", f"bearer {text}", f"BEARER   {text}"):
        answer = await api.get("/api/v1/slots", headers={"Authorization": value})
        assert answer.status_code == 200, value
    for path in (f"/api/v1/slots?token={text}", f"/api/v1/slots?access_token={text}"):
        assert (await api.get(path)).status_code == 401


async def test_a_home_that_ever_had_a_token_is_not_open_again(
    settings: Settings, db: Database, token: Make
) -> None:
    async with client_of(create_app(settings, db), "http://localhost") as api:
        assert (await api.get("/api/v1/slots")).status_code == 200
    token("reader", "ci")
    with db.write() as tx:
        tokens.revoke(tx, "ci", "local")
    async with client_of(create_app(settings, db), "http://localhost") as api:
        assert (await api.get("/api/v1/slots")).status_code == 401


@pytest.mark.parametrize("bind", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "box.lan:1"])
async def test_an_address_that_others_reach_is_never_open(
    settings: Settings, db: Database, token: Make, bind: str
) -> None:
    app = create_app(settings.model_copy(update={"bind": bind}), db)
    async with client_of(app, "http://anything.example") as api:
        assert (await api.get("/api/v1/slots")).status_code == 401
        assert (await api.get("/livez")).status_code == 200
    with db.write() as tx:
        text = tokens.create(tx, "ci", Role.WRITER, "local")[1]
    headers = {"Authorization": f"Bearer {text}"}
    async with client_of(
        create_app(settings.model_copy(update={"bind": bind}), db), "http://h"
    ) as api:
        for host in ("anything.example", "10.0.0.1:1", "hal0.lan:443"):
            answer = await api.get("/api/v1/slots", headers={**headers, "Host": host})
            assert answer.status_code == 200, host
        crossed = await api.post(
            "/api/v1/slots",
            json={"name": "a"},
            headers={**headers, "Origin": "http://evil.example"},
        )
        assert (crossed.status_code, crossed.json()["code"]) == (403, "auth.bad_origin")


async def test_a_token_does_not_excuse_another_machine_s_name_on_loopback(
    api: httpx.AsyncClient, token: Make
) -> None:
    refused = await api.get("/api/v1/slots", headers={**token(), "Host": "evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "auth.bad_host")


async def test_what_another_process_revokes_or_creates_holds_within_a_second(
    api: httpx.AsyncClient, db: Database, token: Make
) -> None:
    headers = token("writer", "ci")
    assert (await api.get("/api/v1/slots", headers=headers)).status_code == 200
    with db.write() as tx:
        tokens.revoke(tx, "ci", "local")
    other = token("writer", "other")
    with anyio.fail_after(30):
        while (await api.get("/api/v1/slots", headers=headers)).is_success:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    assert (await api.get("/api/v1/slots", headers=other)).status_code == 200


async def test_a_database_that_cannot_be_read_lets_nobody_in(
    settings: Settings, db: Database, token: Make
) -> None:
    headers = token()
    db.close()
    db.path.write_bytes(b"\xff" * 20_000)
    async with client_of(create_app(settings, db), "http://localhost") as api:
        for given in ({}, headers):
            answer = await api.get("/api/v1/slots", headers=given)
            assert (answer.status_code, answer.json()["code"]) == (500, "db.corrupt")
        assert (await api.get("/livez")).status_code == 200


async def test_the_use_of_a_token_is_noted(
    api: httpx.AsyncClient, db: Database, token: Make
) -> None:
    headers = token("reader", "ci")
    token("reader", "unused")
    refused = await api.get("/api/v1/slots/nope", headers=headers)
    assert refused.status_code == 404
    with db.read() as tx:
        used = tokens.token_named(tx, "ci").last_used_at
        assert used is not None
        assert abs(utc_now() - used) < timedelta(minutes=1)
        assert tokens.token_named(tx, "unused").last_used_at is None


async def test_rows_name_the_token_that_asked_and_never_a_header(
    api: httpx.AsyncClient, db: Database, token: Make
) -> None:
    headers = {**token("writer", "alice"), "X-Actor": "eve", "X-Forwarded-User": "eve"}
    make_model(db)
    make_slot(db, "chat", "tiny")
    created = await api.post("/api/v1/slots", json={"name": "code"}, headers=headers)
    ordered = await api.post("/api/v1/slots/chat/load", headers=headers)
    assert (created.status_code, ordered.status_code) == (201, 202)
    rows = (await api.get("/api/v1/transitions?slot=code", headers=headers)).json()["items"]
    assert [(row["cause"], row["actor"]) for row in rows] == [("created", "alice")]
    chain = await api.get(f"/api/v1/chains/{ordered.json()['chain_id']}", headers=headers)
    assert chain.json()["actor"] == "alice"
    cancelled = await api.post("/api/v1/jobs/1/cancel", headers=headers)
    assert cancelled.status_code == 200
    keyed = {**headers, "Idempotency-Key": "k"}
    await api.post("/api/v1/slots", json={"name": "third"}, headers=keyed)
    with closing(sqlite3.connect(db.path)) as connection:
        actors = connection.execute("SELECT actor FROM idempotency_keys").fetchall()
    assert actors == [("alice",)]


async def test_a_key_of_one_token_means_nothing_to_another(
    api: httpx.AsyncClient, token: Make
) -> None:
    alice, bob = token("writer", "alice"), token("writer", "bob")
    body, key = {"name": "chat"}, {"Idempotency-Key": "k"}
    made = await api.post("/api/v1/slots", json=body, headers={**alice, **key})
    again = await api.post("/api/v1/slots", json=body, headers={**alice, **key})
    other = await api.post("/api/v1/slots", json=body, headers={**bob, **key})
    assert (made.status_code, again.status_code, other.status_code) == (201, 201, 409)
    assert "idempotent-replayed" not in other.headers


async def test_too_many_bad_tokens_are_told_to_wait_and_a_valid_one_still_passes(
    app: Starlette, token: Make
) -> None:
    good, bad = token(), {"Authorization": "Bearer hal0_" + "c" * 43}
    async with (
        client_of(app, "http://localhost") as here,
        client_of(app, "http://localhost", "192.0.2.7") as there,
    ):
        statuses = [(await here.get("/api/v1/slots", headers=bad)).status_code for _ in range(10)]
        assert statuses == [401] * 10
        refused = await here.get("/api/v1/slots", headers=bad)
        assert (refused.status_code, refused.json()["code"]) == (429, "auth.too_many_failures")
        assert 1 <= int(refused.headers["retry-after"]) <= 6
        assert (await here.get("/api/v1/slots", headers=good)).status_code == 200
        assert (await here.get("/api/v1/slots")).status_code == 401
        assert (await here.get("/livez", headers=bad)).status_code == 200
        assert (await there.get("/api/v1/slots", headers=bad)).status_code == 401


async def test_who_sends_no_token_is_never_told_to_wait(
    api: httpx.AsyncClient, token: Make
) -> None:
    token()
    assert {(await api.get("/api/v1/slots")).status_code for _ in range(30)} == {401}


async def test_a_home_whose_database_was_lost_does_not_open_again(
    settings: Settings, db: Database, token: Make, migrated_file: Path
) -> None:
    headers = token()
    db.close()
    for path in settings.home.glob("hal0.db*"):
        path.unlink()
    shutil.copy(migrated_file, settings.database)
    with closing(Database(settings.database)) as new:
        async with client_of(create_app(settings, new), "http://127.0.0.1") as client:
            assert (await client.get("/api/v1/slots")).status_code == 401
            assert (await client.get("/api/v1/slots", headers=headers)).status_code == 401
            tokens_made = await client.post("/api/v1/tokens", json={"name": "x", "role": "writer"})
            assert tokens_made.status_code == 401


@pytest.mark.parametrize("name", FORWARDED)
async def test_what_a_proxy_hands_on_is_not_of_this_machine(
    api: httpx.AsyncClient, name: str
) -> None:
    assert (await api.get("/api/v1/slots")).status_code == 200
    assert (await api.get("/api/v1/slots", headers={name: "203.0.113.9"})).status_code == 401
