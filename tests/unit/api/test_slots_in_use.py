"""What a slot says of requests for inference: whether they wake it, its limits, its speed."""

from typing import Any

import httpx
import pytest
from sqlalchemy import insert
from starlette.applications import Starlette

from hal0.clock import utc_now
from hal0.db import Database
from hal0.tables import speeds
from tests.rows import contents, make_model, make_slot, run_load

pytestmark = pytest.mark.anyio


async def test_a_new_slot_wakes_as_auto_and_has_the_limits_of_the_settings(
    api: httpx.AsyncClient,
) -> None:
    made = (await api.post("/api/v1/slots", json={"name": "chat"})).json()
    assert (made["wake"], made["max_in_flight"], made["max_waiting"]) == ("auto", None, None)
    assert made["effective"]["max_in_flight"] == 64
    assert made["speed"] is None


async def test_waking_and_limits_are_set_and_changed_back(api: httpx.AsyncClient) -> None:
    given = {"name": "chat", "wake": "never", "max_in_flight": 2, "max_waiting": 0}
    made = (await api.post("/api/v1/slots", json=given)).json()
    assert {name: made[name] for name in given} == given
    assert (made["effective"]["max_in_flight"], made["effective"]["max_waiting"]) == (2, 0)
    changes = {"wake": "always", "max_waiting": None}
    changed = (await api.patch("/api/v1/slots/chat", json=changes)).json()
    assert (changed["wake"], changed["max_in_flight"], changed["max_waiting"]) == (
        "always",
        2,
        None,
    )
    assert changed["effective"]["max_waiting"] == 64
    assert (await api.get("/api/v1/slots/chat")).json() == changed


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("wake", "sometimes"),
        ("wake", None),
        ("wake", True),
        ("max_in_flight", 0),
        ("max_in_flight", 1.5),
        ("max_in_flight", "3"),
        ("max_in_flight", 10**12),
        ("max_waiting", -1),
        ("max_waiting", True),
    ],
)
async def test_what_cannot_be_is_refused_by_its_name(
    api: httpx.AsyncClient, field: str, bad: Any
) -> None:
    refused = await api.post("/api/v1/slots", json={"name": "chat", field: bad})
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["evidence"]["fields"]] == [field]


async def test_a_slot_tells_how_fast_it_answered(api: httpx.AsyncClient, db: Database) -> None:
    slot = make_slot(db)
    make_slot(db, "other")
    row = {"slot_id": slot.id, "requests": 16, "first_byte_ms": 12.5, "tokens_per_s": None}
    with db.soft() as tx:
        tx.execute(insert(speeds), {**row, "at": utc_now()})
    speed = (await api.get("/api/v1/slots/chat")).json()["speed"]
    assert speed.pop("at").endswith("Z")
    assert speed == {"requests": 16, "first_byte_ms": 12.5, "tokens_per_s": None}
    shown = (await api.get("/api/v1/slots")).json()["items"]
    assert [one["speed"] is None for one in shown] == [False, True]


@pytest.mark.parametrize(
    ("order", "body", "limit_s"),
    [
        ("unload", {}, 77),
        ("unload", {"drain_timeout_s": 7}, 7),
        ("load", {"options": {"ctx_size": 2048}}, 77),
    ],
)
async def test_an_order_gives_requests_that_run_the_time_that_it_says_else_the_setting_s(
    app: Starlette,
    api: httpx.AsyncClient,
    db: Database,
    order: str,
    body: dict[str, Any],
    limit_s: float,
) -> None:
    app.state.settings = app.state.settings.model_copy(update={"drain_timeout_s": 77.0})
    make_model(db)
    make_slot(db, "chat", "tiny")
    await api.post("/api/v1/slots/chat/load")
    run_load(db)
    asked = await api.post(f"/api/v1/slots/chat/{order}", json=body)
    assert asked.status_code == 202
    chain = await api.get(f"/api/v1/chains/{asked.json()['chain_id']}")
    assert chain.json()["drain_timeout_s"] == limit_s


async def test_looking_a_slot_up_writes_nothing(api: httpx.AsyncClient, db: Database) -> None:
    """A13"""
    make_model(db)
    make_slot(db, "chat", "tiny")
    await api.post("/api/v1/slots/chat/load")
    run_load(db)
    before = contents(db.path)
    for path in ("/v1/models", "/v1/models/chat", "/v1/models/tiny", "/api/v1/slots/chat"):
        assert (await api.get(path)).status_code == 200
    assert contents(db.path) == before
