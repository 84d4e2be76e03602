"""How loads went, what failed last, and many jobs cancelled at once, over HTTP."""

from typing import Any

import httpx
import pytest

from hal0.db import Database
from hal0.errors import ChecksumMismatch
from tests.ledger import make_slots
from tests.rows import ask_load, fail_next, run_load

pytestmark = pytest.mark.anyio


async def get(api: httpx.AsyncClient, path: str, **query: str) -> dict[str, Any]:
    answer = await api.get(f"/api/v1/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_loads_are_told_newest_first_with_phases_that_add_up_and_what_is_usual(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat")
    nothing = await get(api, "slots/chat/loads")
    assert nothing["items"] == []
    assert nothing["usual_s"] == {"pull": None, "validate": None, "load": None}
    ask_load(db)
    fail_next(db, ChecksumMismatch("bad bytes"))
    ask_load(db)
    run_load(db)
    told = await get(api, "slots/chat/loads")
    newest, first = told["items"]
    assert (first["state"], first["error"]["code"]) == ("failed", "preload.checksum_mismatch")
    assert (newest["actor"], newest["model"], newest["state"]) == ("local", "m-chat", "succeeded")
    assert newest["seconds"] == pytest.approx(sum(newest["phases"].values()), abs=0.01)
    assert newest["ended_at"] is not None
    assert told["usual_s"]["load"] is not None, "one load of this model is known"
    assert len((await get(api, "slots/chat/loads", limit="1"))["items"]) == 1
    assert (await api.get("/api/v1/slots/nope/loads")).status_code == 404


async def test_of_each_slot_the_newest_chain_is_listed_if_it_failed(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat", "mended")
    for slot in ("chat", "mended"):
        ask_load(db, slot)
        fail_next(db, ChecksumMismatch("bad bytes"))
    ask_load(db, "mended")
    run_load(db)
    (failed,) = (await get(api, "jobs/failed"))["items"]
    assert (failed["slot"], failed["error"]["code"]) == ("chat", "preload.checksum_mismatch")
    assert (await get(api, "jobs/failed", filter="code:job.failed"))["items"] == []
    assert (await api.get("/api/v1/jobs/failed?filter=state:queued")).status_code == 422


async def test_many_are_cancelled_when_that_is_meant_and_counted_first(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "one", "two")
    for slot in ("one", "two"):
        ask_load(db, slot)
    for dry_run in (True, True, False):
        body = {"filter": {"text": "slot:one"}, "dry_run": dry_run}
        done = (await api.post("/api/v1/jobs/cancel", json=body)).json()
        assert [(item["slot"], item["was"]) for item in done["items"]] == [("one", "queued")]
        assert len(done["items"][0]["jobs"]) == 4
    left = (await get(api, "jobs", state="queued"))["items"]
    assert {job["slot"] for job in left} == {"two"}
