"""The audit, meta and health."""

import httpx
import pytest
from sqlalchemy import text

from hal0 import __version__
from hal0.clock import boot_id, utc_now
from hal0.db import Database
from hal0.errors import tree
from hal0.states import EDGES, Cause, SlotState
from hal0.tables import REVISION, owners, slots
from tests.rows import ask_load, make_model, make_slot, run_load

pytestmark = pytest.mark.anyio
FIELDS = set("id at slot from to cause actor job_id request_id incident_id evidence".split())  # noqa: SIM905


async def _rows(api: httpx.AsyncClient, **query: object) -> list[dict[str, object]]:
    answer = await api.get("/api/v1/transitions", params={k: str(v) for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, object]] = answer.json()["items"]
    return items


async def test_the_audit_tells_every_change_in_order(api: httpx.AsyncClient, db: Database) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    run_load(db)
    rows = await _rows(api, slot="chat")
    assert all(set(row) == FIELDS for row in rows)
    assert [(row["from"], row["to"], row["cause"]) for row in rows] == [
        (None, "offline", "created"),
        ("offline", "starting", "checked"),
        ("starting", "warming", "load_sent"),
        ("warming", "ready", "loaded"),
    ]
    assert [row["actor"] for row in rows] == ["local", "worker", "worker", "worker"]
    assert [row["to"] for row in await _rows(api, order="desc", limit=2)] == ["ready", "warming"]
    assert [row["to"] for row in await _rows(api, since=rows[1]["id"])] == ["warming", "ready"]
    assert [row["to"] for row in await _rows(api, since=rows[2]["at"])] == ["warming", "ready"]
    assert [row["to"] for row in await _rows(api, cause="checked")] == ["starting"]


async def test_pages_of_the_audit_stay_in_place_while_rows_are_added(
    api: httpx.AsyncClient, db: Database
) -> None:
    for number in range(5):
        make_slot(db, f"slot-{number}")
    for order in ("asc", "desc"):
        seen, cursor = [], None
        while True:
            query = {"order": order, "limit": "2", **({"cursor": cursor} if cursor else {})}
            page = (await api.get("/api/v1/transitions", params=query)).json()
            seen += [row["id"] for row in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
            if order == "desc":
                make_slot(db, f"new-{len(seen)}")
        assert seen == sorted(set(seen), reverse=order == "desc")
        assert len(seen) == 5


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00", "-1", "9" * 30, ""])
async def test_a_since_that_is_neither_time_nor_id_is_refused(
    api: httpx.AsyncClient, since: str
) -> None:
    refused = await api.get("/api/v1/transitions", params={"since": since})
    assert refused.status_code == 422
    assert refused.json()["evidence"]["fields"][0]["field"] == "since"


async def test_a_slot_that_never_was_has_no_audit(api: httpx.AsyncClient) -> None:
    for path in ("transitions", "jobs"):
        missing = await api.get(f"/api/v1/{path}?slot=chat")
        assert (missing.status_code, missing.json()["code"]) == (404, "slot.not_found")


async def test_meta_tells_every_closed_list(api: httpx.AsyncClient) -> None:
    meta = (await api.get("/api/v1/meta")).json()
    assert (meta["version"], meta["schema_revision"]) == (__version__, REVISION)
    assert meta["states"] == [str(state) for state in SlotState]
    assert meta["causes"] == [str(cause) for cause in Cause]
    assert meta["kinds"] == ["pull", "validate", "unload", "load"]
    assert len(meta["edges"]) == len(EDGES)
    assert {one["code"] for one in meta["error_codes"]} == {error.code for error in tree()}


async def test_ready_means_that_the_database_has_this_schema(
    api: httpx.AsyncClient, db: Database
) -> None:
    ready = await api.get("/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["workers"]) == (200, True, [])
    row = {"kind": "worker", "boot_id": boot_id(), "pid_start": 1, "started_at": utc_now()}
    row["seen_at"] = row["started_at"]
    with db.write() as tx:
        tx.execute(owners.insert(), {"id": "gone", "pid": 1, "ended_at": utc_now(), **row})
        tx.execute(owners.insert(), {"id": "here", "pid": 2, **row})
    assert [one["pid"] for one in (await api.get("/readyz")).json()["workers"]] == [2]
    with db.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    refused = await api.get("/readyz")
    assert (refused.status_code, refused.json()["code"]) == (503, "db.newer")
    assert refused.headers["retry-after"] == "1"
    assert (await api.get("/livez")).status_code == 200


async def test_a_row_with_half_a_surrogate_pair_is_told_like_any_other(
    api: httpx.AsyncClient, db: Database
) -> None:
    """No UTF-8 has it: an older hal0 took it from an engine, and could not show the slot again."""
    make_slot(db, "chat")
    error: dict[str, object] = {
        "code": "engine.refused",
        "detail": "\ud800",
        "evidence": {},
        "job_id": None,
    }
    with db.write() as tx:
        tx.execute(slots.update().values(error=error))
    for path in ("/api/v1/slots", "/api/v1/slots/chat"):
        answer = await api.get(path)
        assert answer.status_code == 200
        shown = answer.json()
        assert shown.get("items", [shown])[0]["error"]["detail"] == "\ud800"
