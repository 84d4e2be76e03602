"""Incidents and engines over HTTP."""

import sqlite3
from contextlib import closing
from typing import Any

import httpx
import pytest
from sqlalchemy import event, update

from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.jobs.incident_queries import IncidentFilter, incident_page
from hal0.jobs.incidents import Culprit, record
from hal0.jobs.setup import delete_slot
from hal0.registry.roster import engine_named, note_absence, note_health
from hal0.slots.spec import load_key
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Desired, IncidentKind, SlotState
from hal0.tables import engines, failed_keys, slots
from tests.ledger import add_far_engine, make_slots
from tests.mishaps import count_loads, evict_all, load_all, see
from tests.rows import OPERATOR, ask_unload, claim_next, run_load, slot_now

pytestmark = pytest.mark.anyio
Json = dict[str, Any]


async def listed(api: httpx.AsyncClient, **query: object) -> list[Json]:
    answer = await api.get("/api/v1/incidents", params={k: str(v) for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    items: list[Json] = answer.json()["items"]
    return items


async def test_an_incident_tells_its_culprit_and_what_each_slot_lost(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "one", "two", "evil")
    load_all(db, "one", "two")
    job_id = evict_all(db)
    (found,) = await listed(api)
    assert found["kind"] == "load_failed"
    assert found["engine"] == "default"
    assert found["culprit"] == {"slot": "evil", "model": "m-evil", "job_id": job_id}
    assert found["evidence"] == {"slots": ["one", "two"]}
    moved = found["slots"]
    assert [(one["slot"], one["from"], one["to"], one["cause"]) for one in moved] == [
        ("one", "ready", "offline", "evicted_by_engine"),
        ("two", "ready", "offline", "evicted_by_engine"),
    ]
    assert [one["back_at"] for one in moved] == [None, None]
    assert (await api.get(f"/api/v1/incidents/{found['id']}")).json() == found
    rows = (await api.get("/api/v1/transitions", params={"cause": "evicted_by_engine"})).json()
    assert [row["incident_id"] for row in rows["items"]] == [found["id"]] * 2


async def test_who_is_back_is_told_since_when_and_who_is_not_why(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "back", "work", "parked", "gone", "unwanted", "evil")
    names = ("back", "work", "parked", "gone", "unwanted")
    load_all(db, *names)
    count_loads(db, 5, "parked")
    evict_all(db)
    run_load(db)  # of `back`, by the machine
    claim_next(db)  # of `work`
    ask_unload(db, "unwanted")
    ask_unload(db, "gone")
    with db.write() as tx:
        delete_slot(tx, slot_now(db, "gone"), OPERATOR, force=True)
    (found,) = await listed(api)
    fate = {one["slot"]: one["back_at"] or one["why_away"] for one in found["slots"]}
    assert fate.pop("back").endswith("Z")
    assert fate.pop("work").endswith("is under way")
    assert fate == {
        "parked": "parked after 5 automatic loads: load it to begin anew",
        "gone": "the slot was deleted",
        "unwanted": "nobody wants it loaded any more",
    }


async def test_what_is_gone_past_hal0_may_have_been_a_person_or_another_client_s_failed_load(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat")
    load_all(db, "chat")
    with db.write() as tx:
        chat, kind = slot_now(db), IncidentKind.UNLOADED_ELSEWHERE
        act = Act("reconcile", incident_id=record(tx, chat.engine_id, kind, "gone", evidence={}))
        move(tx, chat, SlotState.OFFLINE, Cause.UNLOADED_ELSEWHERE, act)
        tx.execute(update(slots).values(desired=Desired.UNLOADED))
    (found,) = await listed(api)
    (moved,) = found["slots"]
    assert moved["why_away"] == (
        "it was unloaded past hal0, or dropped after another client's failed load; "
        "`hal0 slot load chat` brings it back"
    )


async def test_what_made_room_for_a_good_load_is_said_to_stay_away(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "old", "new")
    load_all(db, "old")
    evict_all(db, "new", IncidentKind.LOAD_MADE_ROOM)
    (found,) = await listed(api, kind="load_made_room")
    (moved,) = found["slots"]
    assert moved["why_away"] == (
        "no machine brings back what made room for a load that succeeded; `hal0 slot load old` does"
    )


async def test_a_load_that_no_machine_sends_again_is_told_as_the_reason(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat", "evil")
    load_all(db, "chat")
    evict_all(db)
    job_id = evict_all(db, "chat")  # its own load fails too
    (found,) = await listed(api)
    (moved,) = found["slots"]
    assert moved["why_away"].startswith(f"job {job_id} failed: engine.refused")


async def test_a_load_that_failed_once_keeps_machines_from_a_slot_that_is_offline(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat", "evil")
    load_all(db, "chat")
    chat = slot_now(db)
    key = load_key(chat.wanted_model_id or 0, chat.options)
    with db.write() as tx:
        row = {"slot_id": chat.id, "load_key": key, "job_id": 77, "at": utc_now()}
        tx.execute(failed_keys.insert().values(**row))
    evict_all(db)
    (found,) = await listed(api)
    assert [moved["why_away"] for moved in found["slots"]] == [
        "job 77 sent that load and failed: no machine sends it again; `hal0 slot load chat` does"
    ]


async def test_incidents_are_narrowed_by_engine_kind_slot_and_time_and_read_in_pages(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "one", "evil")
    load_all(db, "one")
    evict_all(db)
    add_far_engine(db)
    with db.write() as tx:
        far = engine_named(tx, "far").id
        ids = [record(tx, far, IncidentKind.ENGINE_LOST, f"no. {i}") for i in range(3)]
    assert [one["id"] for one in await listed(api)] == [*reversed(ids), 1]
    assert [one["id"] for one in await listed(api, engine="default")] == [1]
    assert [one["id"] for one in await listed(api, kind="load_failed")] == [1]
    for slot in ("one", "evil"):
        assert [one["id"] for one in await listed(api, slot=slot)] == [1]
    assert [one["id"] for one in await listed(api, since=ids[1])] == [ids[2]]
    newest = (await listed(api))[0]["at"]
    assert [one["id"] for one in await listed(api, since=newest)] == [ids[2]]
    seen: list[int] = []
    cursor = None
    while cursor is not None or not seen:
        query = {"limit": "3", **({"cursor": cursor} if cursor else {})}
        page = (await api.get("/api/v1/incidents", params=query)).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [*reversed(ids), 1]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("incidents/1", 404, "incident.not_found"),
        ("incidents/99999999999999999999", 404, "incident.not_found"),
        ("incidents?engine=nope", 404, "engine.not_found"),
        ("incidents?slot=nope", 404, "slot.not_found"),
        ("incidents?kind=boredom", 422, "request.invalid"),
        ("incidents?since=yesterday", 422, "request.invalid"),
        ("incidents?colour=red", 422, "request.invalid"),
    ],
)
async def test_what_is_not_there_or_makes_no_sense_is_refused(
    api: httpx.AsyncClient, path: str, status: int, code: str
) -> None:
    refused = await api.get(f"/api/v1/{path}")
    assert (refused.status_code, refused.json()["code"]) == (status, code)


async def test_rest_and_the_view_for_auditors_tell_the_same(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "one", "two", "evil")
    load_all(db, "one", "two")
    evict_all(db)
    run_load(db)
    with db.write() as tx:
        late = Culprit(slot_now(db, "evil").id, 1, IncidentKind.LATE_ARRIVAL)
        record(tx, 1, IncidentKind.LATE_ARRIVAL, "it came late", culprit=late)
        record(tx, 1, IncidentKind.ENGINE_LOST, "nobody is there")
    told = set()
    for one in await listed(api):
        culprit = one["culprit"] or {"slot": None, "model": None, "job_id": None}
        event_ = (one["at"], one["engine"], one["kind"], *culprit.values(), one["detail"])
        moved = one["slots"]
        fields = ("slot", "from", "to", "cause", "at", "back_at", "transition_id")
        none = dict.fromkeys(fields)
        told |= {(*event_, *(x[f] for f in fields), one["id"]) for x in moved or [none]}
    with closing(sqlite3.connect(db.path)) as connection:
        columns = (
            "at, engine, kind, culprit, culprit_model, culprit_job_id, detail, moved_slot, "
            "from_state, to_state, cause, moved_at, back_at, transition_id, incident_id"
        )
        viewed = set(connection.execute(f"SELECT {columns} FROM audit_incidents"))
    assert told == viewed
    assert len(viewed) == 4


def test_a_page_of_incidents_never_reads_all_transitions(db: Database) -> None:
    with db.read() as tx:
        plans: list[str] = []

        @event.listens_for(tx, "before_cursor_execute")
        def explain(
            connection: object,
            cursor: sqlite3.Cursor,
            statement: str,
            parameters: tuple[object, ...],
            *rest: object,
        ) -> None:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in cursor.fetchall())

        incident_page(tx, IncidentFilter(slot_ids=[1, 2]), limit=10)
        event.remove(tx, "before_cursor_execute", explain)
    of_transitions = [step for step in plans if "transitions" in step or "later" in step]
    assert of_transitions
    assert [step for step in of_transitions if step.startswith("SCAN")] == []


# -- engines --------------------------------------------------------------------------------------


async def test_an_engine_nobody_has_looked_at_is_not_healthy_and_nothing_was_seen(
    api: httpx.AsyncClient,
) -> None:
    engine = (await api.get("/api/v1/engines/default")).json()
    assert (engine["healthy"], engine["unreachable_s"], engine["seen"]) == (False, None, None)


async def test_what_an_engine_said_of_itself_is_shown_with_models_that_are_nobodys(
    api: httpx.AsyncClient, db: Database
) -> None:
    see(db, version="11.7.0", max_models=4, models=["extra.tiny", "theirs"], strangers=["theirs"])
    with db.write() as tx:
        note_health(tx, engine_named(tx, "default").id, "1-1")
    engine = (await api.get("/api/v1/engines/default")).json()
    assert engine["healthy"] is True
    assert engine["seen"] == {
        "version": "11.7.0",
        "max_models": 4,
        "models": ["extra.tiny", "theirs"],
        "strangers": ["theirs"],
    }
    meta = (await api.get("/api/v1/meta")).json()
    assert meta["engines"] == [{"name": "default", "strangers": ["theirs"]}]
    assert meta["incident_kinds"] == [str(kind) for kind in IncidentKind]


async def test_an_engine_at_which_nobody_is_says_for_how_long(
    api: httpx.AsyncClient, db: Database
) -> None:
    with db.write() as tx:
        engine_id = engine_named(tx, "default").id
        note_health(tx, engine_id, "1-1")
        note_absence(tx, engine_id, {"code": "engine.unreachable", "detail": "", "evidence": {}})
        since = {"unreachable_boot": boot_id(), "unreachable_ms": monotonic_ms() - 90_000}
        tx.execute(engines.update().values(**since))
    engine = (await api.get("/api/v1/engines/default")).json()
    assert engine["healthy"] is False
    assert engine["unreachable_s"] >= 90
