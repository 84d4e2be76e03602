"""What load, unload, validate and pull become, and how they are answered."""

import anyio
import httpx
import pytest

from hal0.db import Database
from hal0.errors import ChecksumMismatch
from hal0.jobs.bell import Bell
from hal0.jobs.ledger import claims
from hal0.settings import Settings
from hal0.states import Outcome
from tests.ledger import end, fail
from tests.rows import (
    claim_next,
    fail_next,
    make_model,
    make_slot,
    run_load,
    send_load,
    skip_to_load,
    slot_now,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def chat(db: Database) -> Database:
    make_model(db)
    make_slot(db, "chat", "tiny")
    return db


async def _states(api: httpx.AsyncClient, slot: str = "chat") -> list[tuple[str, str, str | None]]:
    listed = (await api.get("/api/v1/jobs", params={"slot": slot})).json()["items"]
    return [(job["kind"], job["state"], job["outcome"]) for job in reversed(listed)]


async def test_a_load_is_accepted_with_its_chain_and_the_place_to_look(
    api: httpx.AsyncClient, chat: Database
) -> None:
    accepted = await api.post("/api/v1/slots/chat/load")
    assert accepted.status_code == 202
    body = accepted.json()
    assert (body["already"], body["deduplicated"], len(body["jobs"])) == (False, False, 4)
    assert accepted.headers["location"] == f"/api/v1/jobs/{body['jobs'][-1]}"
    assert (await api.get(accepted.headers["location"])).json()["kind"] == "load"
    assert [kind for kind, _, _ in await _states(api)] == ["pull", "validate", "unload", "load"]
    slot = (await api.get("/api/v1/slots/chat")).json()
    assert (slot["desired"], slot["job_id"]) == ("loaded", body["jobs"][0])


async def test_an_accepted_order_rings_the_bell(
    api: httpx.AsyncClient, chat: Database, settings: Settings
) -> None:
    bell = Bell(settings.run, "worker-1")
    try:
        assert not bell.wait(0.01)
        await api.post("/api/v1/slots/chat/load")
        assert bell.wait(1)
    finally:
        bell.close()


async def test_the_same_load_twice_is_the_same_jobs(api: httpx.AsyncClient, chat: Database) -> None:
    first = (await api.post("/api/v1/slots/chat/load")).json()
    second = await api.post("/api/v1/slots/chat/load")
    assert second.status_code == 202
    assert second.json() == {**first, "deduplicated": True}


async def test_load_unload_load_ends_with_the_last_intent(
    api: httpx.AsyncClient, chat: Database
) -> None:
    first = (await api.post("/api/v1/slots/chat/load")).json()
    unload = (await api.post("/api/v1/slots/chat/unload")).json()
    assert unload["already"] is False or unload["chain_id"] is None
    third = (await api.post("/api/v1/slots/chat/load")).json()
    assert third["chain_id"] != first["chain_id"]
    assert third["deduplicated"] is False
    states = await _states(api)
    assert all(state == ("cancelled", "superseded") for state in [s[1:] for s in states[:4]])
    assert [state for _, state, _ in states[-4:]] == ["queued"] * 4
    assert (await api.get("/api/v1/slots/chat")).json()["desired"] == "loaded"


async def test_a_load_of_what_is_loaded_is_answered_at_once_without_a_job(
    api: httpx.AsyncClient, chat: Database
) -> None:
    await api.post("/api/v1/slots/chat/load")
    run_load(chat)
    again = await api.post("/api/v1/slots/chat/load")
    assert (again.status_code, again.json()["already"], again.json()["jobs"]) == (200, True, [])
    other = await api.post("/api/v1/slots/chat/load", json={"options": {"ctx_size": 8192}})
    assert other.status_code == 202
    assert (await api.get("/api/v1/slots/chat")).json()["options"]["ctx_size"] == 8192


async def test_an_unload_of_an_empty_slot_is_answered_at_once(
    api: httpx.AsyncClient, chat: Database
) -> None:
    answer = await api.post("/api/v1/slots/chat/unload")
    assert (answer.status_code, answer.json()["already"]) == (200, True)


async def test_a_pinned_slot_is_unloaded_only_when_the_request_says_so(
    api: httpx.AsyncClient, chat: Database
) -> None:
    await api.patch("/api/v1/slots/chat", json={"pinned": True})
    await api.post("/api/v1/slots/chat/load")
    run_load(chat)
    refused = await api.post("/api/v1/slots/chat/unload")
    assert (refused.status_code, refused.json()["code"]) == (409, "slot.pinned")
    asked = await api.post("/api/v1/slots/chat/unload", json={"even_if_pinned": True})
    assert asked.status_code == 202


async def test_a_slot_without_a_model_cannot_be_loaded(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slot(db)
    for verb in ("load", "validate", "pull"):
        refused = await api.post(f"/api/v1/slots/chat/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, "slot.no_model")


async def test_a_lone_check_is_a_chain_of_one(api: httpx.AsyncClient, chat: Database) -> None:
    for verb in ("validate", "pull"):
        accepted = await api.post(f"/api/v1/slots/chat/{verb}")
        assert (accepted.status_code, len(accepted.json()["jobs"])) == (202, 1)
    assert [kind for kind, _, _ in await _states(api)] == ["validate", "pull"]


@pytest.mark.parametrize(
    ("verb", "body", "field"),
    [
        ("load", {"model_id": 1}, "model_id"),
        ("load", {"options": {"gpu": 1}}, "options.gpu"),
        ("load", {"rehash": "yes"}, "rehash"),
        ("unload", {"drain_timeout_s": -1}, "drain_timeout_s"),
        ("validate", {"force": True}, "force"),
        ("pull", {"force": True}, "force"),
    ],
)
async def test_an_unknown_or_bad_field_of_an_order_is_refused_by_name(
    api: httpx.AsyncClient, chat: Database, verb: str, body: dict[str, object], field: str
) -> None:
    refused = await api.post(f"/api/v1/slots/chat/{verb}", json=body)
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["evidence"]["fields"]] == [field]
    assert await _states(api) == []


async def test_who_prefers_to_wait_hears_how_it_ended(
    api: httpx.AsyncClient, chat: Database
) -> None:
    async with anyio.create_task_group() as group:

        async def work() -> None:
            await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(run_load, chat)

        group.start_soon(work)
        answer = await api.post("/api/v1/slots/chat/load", headers={"Prefer": "wait=20"})
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    assert answer.headers["preference-applied"] == "wait=20"
    assert [one["outcome"] for one in answer.json()["results"]] == ["skipped"] * 3 + ["done"]


async def test_who_waits_for_a_load_that_fails_hears_its_error(
    api: httpx.AsyncClient, chat: Database
) -> None:
    async with anyio.create_task_group() as group:

        async def work() -> None:
            await anyio.sleep(0.2)
            await anyio.to_thread.run_sync(fail_next, chat, ChecksumMismatch("bad bytes"))

        group.start_soon(work)
        answer = await api.post("/api/v1/slots/chat/load", headers={"Prefer": "wait=20"})
    body = answer.json()
    assert (answer.status_code, body["state"]) == (200, "failed")
    assert body["results"][0]["error"]["code"] == "preload.checksum_mismatch"
    failed, *taken_along = body["results"]
    assert all(one["error"] == failed["error"] for one in taken_along)


async def test_a_wait_that_runs_out_leaves_the_job_going(
    api: httpx.AsyncClient, chat: Database
) -> None:
    answer = await api.post("/api/v1/slots/chat/load", headers={"Prefer": "respond-async, wait=1"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    assert [state for _, state, _ in await _states(api)] == ["queued"] * 4


async def test_many_waiting_callers_hold_no_thread_and_no_connection(
    api: httpx.AsyncClient, chat: Database
) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(
                lambda: api.post("/api/v1/slots/chat/load", headers={"Prefer": "wait=2"})
            )
        await anyio.sleep(0.5)
        with anyio.fail_after(1):
            assert (await api.get("/api/v1/slots")).status_code == 200


async def test_a_queued_job_is_cancelled_with_the_rest_of_its_chain(
    api: httpx.AsyncClient, chat: Database
) -> None:
    accepted = (await api.post("/api/v1/slots/chat/load")).json()
    answer = await api.post(f"/api/v1/jobs/{accepted['jobs'][1]}/cancel")
    assert (answer.status_code, answer.json()["jobs"]) == (200, accepted["jobs"])
    assert [state for _, state, _ in await _states(api)] == ["cancelled"] * 4
    assert (await api.get("/api/v1/slots/chat")).json()["desired"] == "unloaded"
    again = await api.post(f"/api/v1/jobs/{accepted['jobs'][1]}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "job.finished")


async def test_a_load_that_was_sent_is_not_cancelled_and_the_reason_is_told(
    api: httpx.AsyncClient, chat: Database
) -> None:
    accepted = (await api.post("/api/v1/slots/chat/load")).json()
    send_load(chat)
    refused = await api.post(f"/api/v1/jobs/{accepted['jobs'][-1]}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "job.already_sent")
    assert "was sent to the engine" in refused.json()["detail"]


async def test_a_failed_job_is_retried_and_its_attempts_are_kept(
    api: httpx.AsyncClient, chat: Database
) -> None:
    accepted = (await api.post("/api/v1/slots/chat/load")).json()
    with chat.write() as tx:
        claims.finish(tx, claims.claim(tx, "owner-1"), Outcome.SKIPPED)  # type: ignore[arg-type]
    fail_next(chat, ChecksumMismatch("bad bytes"))
    failed = (await api.get(f"/api/v1/jobs/{accepted['jobs'][1]}")).json()
    assert (failed["state"], failed["error"]["code"]) == ("failed", "preload.checksum_mismatch")

    retried = await api.post(f"/api/v1/jobs/{failed['id']}/retry")
    assert retried.status_code == 202
    assert retried.json()["jobs"] == accepted["jobs"][1:]
    assert retried.json()["chain_id"] == accepted["chain_id"]
    assert retried.headers["location"] == f"/api/v1/jobs/{accepted['jobs'][-1]}"
    job = (await api.get(f"/api/v1/jobs/{failed['id']}")).json()
    assert (job["state"], job["attempts"][0]["outcome"]) == ("queued", "failed")


async def test_a_retry_while_a_newer_chain_is_unfinished_is_a_conflict(
    api: httpx.AsyncClient, chat: Database
) -> None:
    accepted = (await api.post("/api/v1/slots/chat/load")).json()
    fail_next(chat, ChecksumMismatch("bad bytes"))
    newer = (await api.post("/api/v1/slots/chat/validate")).json()
    refused = await api.post(f"/api/v1/jobs/{accepted['jobs'][0]}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "job.superseded")
    assert refused.json()["evidence"]["job_id"] == newer["jobs"][0]


async def test_a_job_of_a_slot_or_model_that_was_deleted_since_is_not_retried(
    api: httpx.AsyncClient, chat: Database
) -> None:
    make_model(chat, "other")
    accepted = (await api.post("/api/v1/slots/chat/load")).json()
    fail_next(chat, ChecksumMismatch("bad bytes"))
    await api.patch("/api/v1/slots/chat", json={"model": "other"})
    assert (await api.delete("/api/v1/models/tiny")).status_code == 204
    refused = await api.post(f"/api/v1/jobs/{accepted['jobs'][0]}/retry")
    assert (refused.status_code, refused.json()["code"]) == (404, "model.not_found")
    bulk = (await api.post("/api/v1/jobs/retry", json={})).json()
    assert bulk["items"] == [], "the slot wants another model by now"
    assert (await api.delete("/api/v1/slots/chat")).status_code == 204
    refused = await api.post(f"/api/v1/jobs/{accepted['jobs'][0]}/retry")
    assert (refused.status_code, refused.json()["code"]) == (404, "slot.not_found")
    assert (await api.get("/api/v1/jobs?state=queued")).json()["items"] == []


async def test_only_a_failed_job_is_retried(api: httpx.AsyncClient, chat: Database) -> None:
    accepted = (await api.post("/api/v1/slots/chat/load")).json()
    refused = await api.post(f"/api/v1/jobs/{accepted['jobs'][0]}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "job.not_failed")


async def _fail_one(api: httpx.AsyncClient, db: Database, slot: str) -> int:
    make_model(db, f"model-{slot}")
    make_slot(db, slot, f"model-{slot}")
    await api.post(f"/api/v1/slots/{slot}/load")
    return fail_next(db, ChecksumMismatch("bad bytes")).job.id


async def test_a_bulk_retry_takes_the_newest_chain_of_each_slot_if_that_failed(
    api: httpx.AsyncClient, db: Database
) -> None:
    failed = {slot: await _fail_one(api, db, slot) for slot in ("a", "b", "c", "d")}
    await api.post("/api/v1/slots/b/load", json={"options": {"ctx_size": 512}})
    newer = fail_next(db, ChecksumMismatch("bad again")).job.id
    await api.post("/api/v1/slots/c/validate")
    held = claim_next(db)
    with db.write() as tx:
        claims.finish(tx, held)

    plan = (await api.post("/api/v1/jobs/retry", json={"dry_run": True})).json()
    assert [(item["slot"], item["job_id"]) for item in plan["items"]] == [
        ("a", failed["a"]),
        ("b", newer),
        ("d", failed["d"]),
    ]
    assert (await api.get("/api/v1/jobs?state=queued")).json()["items"] == []

    done = (await api.post("/api/v1/jobs/retry", json={})).json()
    assert done["items"] == plan["items"]
    assert all(len(item["jobs"]) == 4 and item["refused"] is None for item in done["items"])
    queued = (await api.get("/api/v1/jobs?state=queued")).json()["items"]
    assert {job["slot"] for job in queued} == {"a", "b", "d"}


async def test_a_bulk_retry_takes_what_put_a_slot_in_error_although_its_file_was_pulled_since(
    api: httpx.AsyncClient, chat: Database
) -> None:
    """A pull or a check asks for nothing else: the load that failed is still what is wanted."""

    async def planned() -> list[tuple[str, int]]:
        plan = (await api.post("/api/v1/jobs/retry", json={"dry_run": True})).json()
        return [(item["slot"], item["job_id"]) for item in plan["items"]]

    await api.post("/api/v1/slots/chat/load")
    load = send_load(chat)
    fail(chat, load)
    assert slot_now(chat).state == "error"
    for verb in ("pull", "validate"):
        await api.post(f"/api/v1/slots/chat/{verb}")
        assert await planned() == [], "it may mend what failed"
        end(chat, claim_next(chat))
        assert await planned() == [("chat", load.job.id)]
    loads = (await api.post("/api/v1/slots/chat/load")).json()
    await api.post(f"/api/v1/jobs/{loads['jobs'][0]}/cancel")
    assert await planned() == [], "somebody asked for a load since, and took it back"


async def test_a_bulk_retry_is_narrowed_by_slot_kind_and_code(
    api: httpx.AsyncClient, db: Database
) -> None:
    for slot in ("a", "b"):
        await _fail_one(api, db, slot)
    for narrowed, slots in [
        ({"slot": "a"}, ["a"]),
        ({"kind": "pull"}, ["a", "b"]),
        ({"kind": "load"}, []),
        ({"code": "preload.checksum_mismatch", "slot": "b"}, ["b"]),
        ({"code": "preload.truncated"}, []),
    ]:
        body = {"filter": narrowed, "dry_run": True}
        plan = (await api.post("/api/v1/jobs/retry", json=body)).json()
        assert [item["slot"] for item in plan["items"]] == slots
    for bad in ({"filter": {"state": "queued"}}, {"filter": {"color": 1}}, {"dry": True}):
        assert (await api.post("/api/v1/jobs/retry", json=bad)).status_code == 422
    missing = await api.post("/api/v1/jobs/retry", json={"filter": {"slot": "zz"}})
    assert missing.status_code == 404


async def test_an_order_for_a_slot_that_is_not_there_writes_nothing(
    api: httpx.AsyncClient,
) -> None:
    for verb in ("load", "unload", "validate", "pull"):
        refused = await api.post(f"/api/v1/slots/nothing/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (404, "slot.not_found")
    assert (await api.get("/api/v1/jobs")).json()["items"] == []


async def test_the_request_id_is_found_in_the_rows_that_the_request_made(
    api: httpx.AsyncClient, chat: Database
) -> None:
    accepted = await api.post("/api/v1/slots/chat/load", headers={"X-Request-ID": "my-load-1"})
    chain = (await api.get(f"/api/v1/chains/{accepted.json()['chain_id']}")).json()
    assert (chain["request_id"], chain["actor"], chain["origin"]) == (
        "my-load-1",
        "local",
        "operator",
    )
    skip_to_load(chat)
