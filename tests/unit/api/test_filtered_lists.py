"""The text of a filter over REST: lists and bulk retries take what the page takes."""

from typing import Any

import httpx
import pytest

from hal0.db import Database
from hal0.errors import ChecksumMismatch
from tests.rows import ask_load, fail_next, make_model, make_slot, run_load

pytestmark = pytest.mark.anyio


@pytest.fixture
def furnished(db: Database) -> Database:
    """`chat` is loaded by jobs 1 to 4, job 5 of `broken` failed."""
    for slot in ("chat", "broken"):
        make_model(db, f"of-{slot}")
        make_slot(db, slot, f"of-{slot}")
    ask_load(db, "chat")
    run_load(db)
    ask_load(db, "broken")
    fail_next(db, ChecksumMismatch("bad bytes"))
    return db


async def items(api: httpx.AsyncClient, path: str, **query: str) -> list[Any]:
    answer = await api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def test_a_list_of_jobs_is_narrowed_by_a_filter_and_by_what_stands_beside_it(
    api: httpx.AsyncClient, furnished: Database
) -> None:
    found = await items(api, "/api/v1/jobs", filter="slot:broken state:failed")
    assert [job["id"] for job in found] == [5]
    found = await items(api, "/api/v1/jobs", filter="since:1h kind:load", slot="chat")
    assert [job["id"] for job in found] == [4]


async def test_the_audit_is_narrowed_the_same_way(
    api: httpx.AsyncClient, furnished: Database
) -> None:
    found = await items(api, "/api/v1/transitions", filter="state:ready", slot="chat")
    assert [(row["slot"], row["to"]) for row in found] == [("chat", "ready")]


async def test_the_audit_ends_before_a_time_in_the_filter_or_beside_it(
    api: httpx.AsyncClient, furnished: Database
) -> None:
    for query, is_any in (
        ({"filter": "until:1h"}, False),
        ({"until": "2026-01-01T00:00:00Z"}, False),
        ({"until": "2199-01-01T00:00:00Z"}, True),
    ):
        assert (await items(api, "/api/v1/transitions", **query) != []) is is_any
    for wrong in ("12", "2h", "2026-01-01"):
        refused = await api.get("/api/v1/transitions", params={"until": wrong})
        assert refused.status_code == 422
        assert refused.json()["evidence"]["fields"][0]["field"] == "until"


@pytest.mark.parametrize(
    ("path", "query", "told"),
    [
        ("/api/v1/jobs", {"filter": "x"}, "filter: 'x' is no term"),
        ("/api/v1/jobs", {"filter": "slot:a", "slot": "b"}, "filter: slot is given in the filter"),
        ("/api/v1/transitions", {"filter": "slot:chat", "slot": "chat"}, "filter: slot is given"),
        ("/api/v1/transitions", {"filter": "cause:x"}, "filter: cause:x is none there is"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_the_field(
    api: httpx.AsyncClient, furnished: Database, path: str, query: dict[str, str], told: str
) -> None:
    refused = await api.get(path, params=query)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(told)
    assert refused.json()["evidence"]["fields"][0]["field"] == "filter"


async def test_a_bulk_retry_takes_a_text_and_counts_first(
    api: httpx.AsyncClient, furnished: Database
) -> None:
    body = {"filter": {"text": "slot:broken since:1h"}, "dry_run": True}
    counted = (await api.post("/api/v1/jobs/retry", json=body)).json()
    assert [(item["slot"], item["job_id"]) for item in counted["items"]] == [("broken", 5)]
    none = {"filter": {"text": "slot:chat"}}
    assert (await api.post("/api/v1/jobs/retry", json=none)).json()["items"] == []
    refused = await api.post("/api/v1/jobs/retry", json={"filter": {"text": "state:queued"}})
    assert refused.status_code == 422
