"""What is shown of jobs and chains."""

import httpx
import pytest

from hal0.db import Database
from hal0.jobs.ledger import claims
from hal0.states import Outcome
from hal0.tables import job_progress
from tests.rows import (
    ask_load,
    ask_unload,
    claim_next,
    make_model,
    make_slot,
    run_load,
    send_load,
    skip_to_load,
)

pytestmark = pytest.mark.anyio
JOB_FIELDS = (
    "id chain_id kind state outcome slot model engine attempt created_at run_after started_at "
    "ended_at deadline_at waiting_for caused_by incident_id actor progress files error attempts"
)


async def _waiting_for(api: httpx.AsyncClient, job_id: int) -> str | None:
    job: dict[str, str | None] = (await api.get(f"/api/v1/jobs/{job_id}")).json()
    return job["waiting_for"]


def _two_slots(db: Database) -> None:
    for slot in ("one", "two"):
        make_model(db, f"model-{slot}")
        make_slot(db, slot, f"model-{slot}")


async def test_a_job_is_shown_with_names_times_and_no_claim_yet(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    job_id = ask_load(db).job_ids[0]
    job = (await api.get(f"/api/v1/jobs/{job_id}")).json()
    assert set(job) == set(JOB_FIELDS.split())
    assert (job["slot"], job["model"], job["engine"]) == ("chat", "tiny", "default")
    assert (job["state"], job["attempt"], job["attempts"]) == ("queued", 0, [])
    assert (job["waiting_for"], job["progress"], job["error"]) == (None, None, None)
    assert job["created_at"].endswith("Z")


async def test_progress_is_shown_of_the_running_attempt_alone(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    job_id = ask_load(db).job_ids[0]
    held = claim_next(db)
    row = {
        "job_id": job_id,
        "attempt": 1,
        "phase": "copying",
        "done_bytes": 3,
        "rate_bytes_s": 2.0,
        "total_bytes": 9,
        "at": held.job.created_at,
    }
    with db.soft() as tx:
        tx.execute(job_progress.insert(), row)
    shown = (await api.get(f"/api/v1/jobs/{job_id}")).json()["progress"]
    assert shown == {
        "phase": "copying",
        "done_bytes": 3,
        "total_bytes": 9,
        "rate_bytes_s": 2,
        "left_s": 3.0,
    }
    with db.write() as tx:
        claims.put_back(tx, held, Outcome.INTERRUPTED)
    assert (await api.get(f"/api/v1/jobs/{job_id}")).json()["progress"] is None
    claim_next(db)
    job = (await api.get(f"/api/v1/jobs/{job_id}")).json()
    assert (job["attempt"], job["progress"]) == (2, None)
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["interrupted"]


async def test_a_job_waits_for_the_earlier_ones_of_its_slot(
    api: httpx.AsyncClient, db: Database
) -> None:
    _two_slots(db)
    first, second, *_ = ask_load(db, "one").job_ids
    other = ask_load(db, "two").job_ids[0]
    assert await _waiting_for(api, first) is None
    assert await _waiting_for(api, second) == f"job {first} (pull) of this slot"
    assert await _waiting_for(api, other) is None


async def test_a_load_waits_for_the_lane_and_says_whose_load_is_in_it(
    api: httpx.AsyncClient, db: Database
) -> None:
    _two_slots(db)
    ask_load(db, "one")
    sent = send_load(db)
    load = ask_load(db, "two").job_ids[-1]
    for _ in range(3):
        with db.write() as tx:
            claims.finish(tx, claims.claim(tx, "owner-2"), Outcome.SKIPPED)  # type: ignore[arg-type]
    expected = f"lane of engine default: load of slot one (job {sent.job.id})"
    assert await _waiting_for(api, load) == expected


async def test_a_load_waits_for_a_running_unload_of_its_engine(
    api: httpx.AsyncClient, db: Database
) -> None:
    _two_slots(db)
    ask_load(db, "one")
    run_load(db)
    load = ask_load(db, "two").job_ids[-1]
    for _ in range(3):
        with db.write() as tx:
            claims.finish(tx, claims.claim(tx, "owner-2"), Outcome.SKIPPED)  # type: ignore[arg-type]
    unload = ask_unload(db, "one").job_ids[0]
    assert await _waiting_for(api, load) is None
    claimed = [claim_next(db, "owner-1").job.id]
    assert claimed == [load]  # it came first; put it back behind the unload
    with db.write() as tx:
        claims.put_back(tx, claims.running_claim(tx, load), Outcome.DEFERRED, after_s=30)
    assert claim_next(db).job.id == unload
    assert await _waiting_for(api, load) == f"unload of slot one (job {unload})"


async def test_a_deferred_job_waits_for_its_engine_until_it_may_run_again(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    held = skip_to_load(db)
    with db.write() as tx:
        claims.put_back(tx, held, Outcome.DEFERRED, after_s=30)
    job = (await api.get(f"/api/v1/jobs/{held.job.id}")).json()
    assert job["waiting_for"] == "engine default"
    assert job["run_after"] > job["created_at"]
    assert (job["state"], job["outcome"]) == ("queued", "deferred")


async def test_a_pull_waits_for_another_pull_of_the_same_model(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_model(db)
    make_slot(db, "one", "tiny")
    other = {"name": "other", "kind": "embedded", "url": "http://127.0.0.1:9"}
    assert (await api.post("/api/v1/engines", json=other)).status_code == 201
    make_slot(db, "two", "tiny", engine="other")
    first = ask_load(db, "one").job_ids[0]
    second = ask_load(db, "two").job_ids[0]
    assert claim_next(db).job.id == first
    assert await _waiting_for(api, second) == f"pull of the same model for slot one (job {first})"


async def test_jobs_are_paged_newest_first_and_stay_so_while_more_are_added(
    api: httpx.AsyncClient, db: Database
) -> None:
    _two_slots(db)
    ids = [*ask_load(db, "one").job_ids]
    first = (await api.get("/api/v1/jobs?limit=3")).json()
    ask_load(db, "two")
    second = (await api.get(f"/api/v1/jobs?limit=3&cursor={first['next_cursor']}")).json()
    seen = [job["id"] for job in first["items"] + second["items"]]
    assert seen == sorted(ids, reverse=True)
    assert second["next_cursor"] is None


async def test_jobs_are_filtered_by_slot_state_and_kind(
    api: httpx.AsyncClient, db: Database
) -> None:
    _two_slots(db)
    ask_load(db, "one")
    ask_load(db, "two")
    claim_next(db)

    async def count(**query: str) -> int:
        return len((await api.get("/api/v1/jobs", params=query)).json()["items"])

    assert await count() == 8
    assert await count(slot="two") == 4
    assert await count(state="running") == 1
    assert await count(kind="load") == 2
    assert await count(slot="one", state="queued", kind="pull") == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("state=done", "state"),
        ("kind=push", "kind"),
        ("cursor=nonsense", "cursor"),
        ("cursor=WyJzbG90cyIsIDFd", "cursor"),
        ("page=2", "page"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_bad_query_is_refused_by_name(
    api: httpx.AsyncClient, query: str, field: str
) -> None:
    refused = await api.get(f"/api/v1/jobs?{query}")
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["evidence"]["fields"]] == [field]


@pytest.mark.parametrize("path", ["jobs/1", "chains/1", f"jobs/{10**30}", f"chains/{10**30}"])
async def test_a_job_or_chain_that_is_not_there_is_not_found(
    api: httpx.AsyncClient, path: str
) -> None:
    missing = await api.get(f"/api/v1/{path}")
    assert (missing.status_code, missing.json()["code"]) == (404, "job.not_found")


async def test_a_chain_sums_up_its_jobs(api: httpx.AsyncClient, db: Database) -> None:
    make_model(db)
    make_slot(db, "chat", "tiny")
    accepted = ask_load(db, rehash=True)
    path = f"/api/v1/chains/{accepted.chain_id}"
    chain = (await api.get(path)).json()
    assert (chain["slot"], chain["goal"], chain["state"]) == ("chat", "load", "queued")
    assert (chain["model"], chain["rehash"]) == ("tiny", True)
    assert [job["id"] for job in chain["jobs"]] == list(accepted.job_ids)
    run_load(db)
    assert (await api.get(path)).json()["state"] == "succeeded"
