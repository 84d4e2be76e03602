"""Tokens over REST: made once, shown without their text, revoked for good."""

import re
from typing import Any

import httpx
import pytest

from hal0.access import tokens
from hal0.access.roles import Role
from hal0.db import Database
from tests.rows import contents

pytestmark = pytest.mark.anyio
FIELDS = {
    *("name", "role", "state", "created_at", "created_by", "expires_at"),
    *("revoked_at", "revoked_by", "last_used_at"),
}
PATH = "/api/v1/tokens"


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


async def create(api: httpx.AsyncClient, name: str, role: str, **more: Any) -> Any:
    made = await api.post(PATH, json={"name": name, "role": role, **more})
    assert made.status_code == 201, made.text
    return made.json()


async def test_the_first_token_closes_the_api_at_once_and_makes_the_others(
    api: httpx.AsyncClient, db: Database
) -> None:
    first = await create(api, "alice", "writer")
    assert set(first) == FIELDS | {"token"}
    assert (first["state"], first["created_by"], first["expires_at"]) == ("valid", "local", None)
    assert (await api.get("/api/v1/slots")).status_code == 401
    api.headers.update(bearer(first["token"]))
    second = await create(api, "bob", "reader", expires_in_s=60.5)
    assert second["created_by"] == "alice"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", second["expires_at"])
    listed = (await api.get(PATH)).json()
    assert [one["name"] for one in listed["items"]] == ["alice", "bob"]
    assert all(set(one) == FIELDS for one in listed["items"])
    assert listed["next_cursor"] is None
    for text in (first["token"], second["token"]):
        assert text.removeprefix("hal0_") not in str(contents(db.path)) + str(listed)


async def test_the_list_comes_in_pages(api: httpx.AsyncClient, db: Database) -> None:
    with db.write() as tx:
        texts = [tokens.create(tx, f"t{n}", Role.WRITER, "local")[1] for n in range(5)]
    api.headers.update(bearer(texts[0]))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        listed = (await api.get(PATH, params={"limit": "2", **cursor})).json()
        seen += [one["name"] for one in listed["items"]]
        if listed["next_cursor"] is None:
            break
        cursor = {"cursor": listed["next_cursor"]}
    assert seen == ["t0", "t1", "t2", "t3", "t4"]


async def test_a_revoked_token_opens_nothing_from_the_answer_on_and_its_row_stays(
    api: httpx.AsyncClient,
) -> None:
    alice = bearer((await create(api, "alice", "writer"))["token"])
    api.headers.update(alice)
    bob = bearer((await create(api, "bob", "reader"))["token"])
    assert (await api.get("/api/v1/slots", headers=bob)).status_code == 200
    revoked = await api.delete(f"{PATH}/bob")
    assert revoked.status_code == 200
    assert (revoked.json()["state"], revoked.json()["revoked_by"]) == ("revoked", "alice")
    assert (await api.get("/api/v1/slots", headers=bob)).status_code == 401
    again = await api.delete(f"{PATH}/bob")
    was = {**revoked.json(), "last_used_at": again.json()["last_used_at"]}
    assert (again.status_code, again.json()) == (200, was)
    taken = await api.post(PATH, json={"name": "bob", "role": "reader"})
    assert (taken.status_code, taken.json()["code"]) == (409, "token.exists")
    missing = await api.delete(f"{PATH}/carol")
    assert (missing.status_code, missing.json()["code"]) == (404, "token.not_found")


async def test_the_last_writer_may_go_and_the_api_stays_closed(api: httpx.AsyncClient) -> None:
    api.headers.update(bearer((await create(api, "alice", "writer"))["token"]))
    assert (await api.delete(f"{PATH}/alice")).status_code == 200
    assert (await api.get(PATH)).status_code == 401
    del api.headers["authorization"]
    assert (await api.get("/api/v1/slots")).status_code == 401
    assert (await api.get("/livez")).status_code == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "name: must be given; role: must be given"),
        ({"name": "a", "role": "anyone"}, "role: takes 'client', 'reader' or 'writer'"),
        ({"name": "a", "role": "WRITER"}, "role: takes"),
        ({"name": "local", "role": "reader"}, "name: no token can be called 'local'"),
        ({"name": "A", "role": "reader"}, "name: 'A' is no token name"),
        ({"name": "a", "role": "reader", "expires_in_s": 0}, "expires_in_s: takes more than 0"),
        ({"name": "a", "role": "reader", "expires_in_s": 1e12}, "expires_in_s: takes"),
        ({"name": "a", "role": "reader", "expires_in_s": "30d"}, "expires_in_s: takes a number"),
        ({"name": "a", "role": "reader", "token": "mine"}, "token: is unknown"),
    ],
)
async def test_a_token_that_cannot_be_is_refused_with_every_reason(
    api: httpx.AsyncClient, db: Database, body: dict[str, Any], says: str
) -> None:
    refused = await api.post(PATH, json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert says in refused.json()["detail"]
    assert contents(db.path)["tokens"] == []


async def test_no_answer_with_a_token_in_it_is_kept_to_be_given_again(
    api: httpx.AsyncClient, db: Database
) -> None:
    body = {"name": "ci", "role": "reader"}
    refused = await api.post(PATH, json=body, headers={"Idempotency-Key": "k"})
    assert (refused.status_code, refused.json()["code"]) == (422, "request.invalid")
    assert "revoke the token and make another" in refused.json()["detail"]
    kept = contents(db.path)
    assert (kept["tokens"], kept["idempotency_keys"]) == ([], [])
