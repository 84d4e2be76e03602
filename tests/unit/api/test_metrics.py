"""`/metrics`: names, labels and numbers as a scrape gets them, and what a scrape costs."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from sqlalchemy import Connection, event, insert, update
from starlette.applications import Starlette

from hal0.api.families import KEPT
from hal0.api.metrics import Rows, registry_of
from hal0.clock import boot_id, monotonic_ms, utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch, DatabaseUnwritable
from hal0.jobs.ledger import breaker
from hal0.jobs.phases import Phase
from hal0.jobs.tallies import DRIFT, REFUSALS, Tallies
from hal0.states import Cause, IncidentKind, JobKind, Outcome, SlotState
from hal0.tables import engines, incidents, jobs, owners, slots, speeds
from tests.apis import MoodyDatabase
from tests.ledger import LIMIT_S, end, eventually, fail, make_slots, serve
from tests.mishaps import count_loads, load_all
from tests.rows import ask_load, claim_next, make_slot, slot_now
from tests.scrapes import labels_of, numbers_in, of, scrape, text_of

pytestmark = pytest.mark.anyio


async def test_each_slot_is_in_one_state(api: httpx.AsyncClient, db: Database) -> None:
    make_slots(db, "chat", "code")
    load_all(db, "chat")
    numbers = await scrape(api)
    for slot, state in (("chat", SlotState.READY), ("code", SlotState.OFFLINE)):
        for one in SlotState:
            assert of(numbers, "hal0_slot_state", slot=slot, state=one) == float(one is state)
    changes = "hal0_slot_state_changes_total"
    assert of(numbers, changes, slot="chat", to="ready", cause="loaded") == 1
    assert of(numbers, changes, slot="code", to="offline", cause="created") == 1


async def test_how_a_slot_is_used_is_told(api: httpx.AsyncClient, db: Database) -> None:
    make_slots(db, "chat", "busy", "code")
    load_all(db, "chat", "busy")
    serve(db, "busy", requests=3)
    used_at = utc_now() - timedelta(seconds=100)
    row = {"requests": 4, "first_byte_ms": 250.0, "tokens_per_s": 30.5, "at": utc_now()}
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == "chat").values(last_used_at=used_at))
        tx.execute(insert(speeds).values(slot_id=slot_now(db, "chat").id, **row))
    numbers = await scrape(api)
    assert of(numbers, "hal0_slot_in_flight", slot="busy") == 3
    assert of(numbers, "hal0_slot_in_flight", slot="chat") == 0
    assert 100 <= (of(numbers, "hal0_slot_idle_seconds", slot="chat") or 0) < 200
    assert labels_of(numbers, "hal0_slot_idle_seconds", "slot") == {"chat"}
    last_use = of(numbers, "hal0_slot_last_use_timestamp_seconds", slot="chat")
    assert last_use == pytest.approx(used_at.timestamp())
    assert of(numbers, "hal0_slot_first_byte_seconds", slot="chat") == 0.25
    assert of(numbers, "hal0_slot_tokens_per_second", slot="chat") == 30.5
    assert labels_of(numbers, "hal0_slot_tokens_per_second", "slot") == {"chat"}


async def test_a_slot_that_no_machine_loads_any_more_is_parked(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat", "code")
    count_loads(db, breaker.PARKED_AFTER, "chat")
    count_loads(db, 1, "code")
    numbers = await scrape(api)
    assert of(numbers, "hal0_slot_parked", slot="chat") == 1
    assert of(numbers, "hal0_slot_parked", slot="code") == 0
    assert of(numbers, "hal0_slot_automatic_loads", slot="code") == 1


async def test_a_slot_that_is_gone_has_no_series(api: httpx.AsyncClient, db: Database) -> None:
    make_slots(db, "chat", "code")
    assert labels_of(await scrape(api), "hal0_slot_state_changes_total", "slot") == {"chat", "code"}
    with db.write() as tx:
        tx.execute(update(slots).where(slots.c.name == "code").values(deleted_at=utc_now()))
    numbers = await scrape(api)
    assert {dict(labels)["slot"] for _, labels in numbers if "slot" in dict(labels)} == {"chat"}


async def test_jobs_and_their_attempts_are_told(api: httpx.AsyncClient, db: Database) -> None:
    make_slots(db, "chat", "code")
    ask_load(db, "chat")
    end(db, claim_next(db), Outcome.SKIPPED)
    fail(db, claim_next(db), ChecksumMismatch("no"))
    ask_load(db, "code")
    claim_next(db)
    numbers = await scrape(api)
    assert of(numbers, "hal0_jobs", kind="validate", state="failed") == 1
    assert of(numbers, "hal0_jobs", kind="pull", state="running") == 1
    assert of(numbers, "hal0_jobs", kind="load", state="queued") == 1
    assert of(numbers, "hal0_job_attempts_total", kind="pull", outcome="skipped") == 1
    assert of(numbers, "hal0_job_attempts_total", kind="validate", outcome="failed") == 1
    codes = "hal0_validation_failures_total"
    assert of(numbers, codes, code="preload.checksum_mismatch") == 1
    assert of(numbers, codes, code="preload.truncated") == 0
    assert of(numbers, "hal0_job_duration_seconds_count", kind="validate") == 1
    assert of(numbers, "hal0_job_duration_seconds_count", kind="pull") == 0
    assert of(numbers, "hal0_job_wait_seconds_count", kind="pull") == 1
    assert of(numbers, "hal0_job_wait_seconds_bucket", kind="pull", le="+Inf") == 1


async def test_the_phases_of_loads_add_up(api: httpx.AsyncClient, db: Database) -> None:
    make_slots(db, "chat", "code")
    load_all(db, "chat", "code")
    numbers = await scrape(api)
    parts = [of(numbers, "hal0_load_phase_seconds_sum", phase=phase) for phase in Phase]
    whole = of(numbers, "hal0_load_seconds_sum")
    assert whole
    assert sum(part or 0 for part in parts) == pytest.approx(whole)
    assert of(numbers, "hal0_load_seconds_count") == 2
    bounds = {"1", "2", "5", "10", "20", "40", "60", "90", "120", "300", "600", "+Inf"}
    for name in ("hal0_load_seconds", "hal0_job_duration_seconds", "hal0_job_wait_seconds"):
        assert labels_of(numbers, f"{name}_bucket", "le") == bounds


async def test_the_age_of_what_waits_is_of_who_is_first_and_waits_for_nobody_of_its_own(
    api: httpx.AsyncClient, db: Database
) -> None:
    make_slots(db, "chat", "code")
    old, newer = utc_now() - timedelta(seconds=500), utc_now() - timedelta(seconds=90)
    name = "hal0_oldest_queued_job_age_seconds"
    assert of(await scrape(api), name) == 0
    ask_load(db, "chat")
    with db.write() as tx:
        tx.execute(update(jobs).values(created_at=old))
    assert 500 <= (of(await scrape(api), name) or 0) < 600
    held = claim_next(db)
    assert of(await scrape(api), name) == 0
    end(db, held, Outcome.SKIPPED)
    with db.write() as tx:
        tx.execute(update(jobs).where(jobs.c.id == held.job.id).values(ended_at=newer))
    assert 90 <= (of(await scrape(api), name) or 0) < 190


async def test_engines_and_workers_are_told(api: httpx.AsyncClient, db: Database) -> None:
    seen_at = utc_now() - timedelta(seconds=40)
    worker = {"kind": "worker", "boot_id": boot_id(), "pid": 1, "pid_start": 1}
    row = {"engine_id": 1, "kind": "engine_lost", "detail": "it is gone", "at": utc_now()}
    numbers = await scrape(api)
    assert of(numbers, "hal0_backend_up", engine="default") == 0
    assert not labels_of(numbers, "hal0_engine_scan_age_seconds", "engine")
    assert not labels_of(numbers, "hal0_idle_scan_duration_seconds", "engine")
    assert of(numbers, "hal0_fenced_writes_total") == 0
    with db.write() as tx:
        for name, ended_at in (("worker-1", None), ("worker-2", utc_now())):
            times = {"started_at": seen_at, "seen_at": seen_at, "ended_at": ended_at}
            tx.execute(insert(owners).values(id=name, **worker, **times, fenced_writes=2))
        tx.execute(insert(incidents).values(**row))
        scanned = {
            "scanned_boot": boot_id(),
            "scanned_ms": monotonic_ms() - 7000,
            "scan_took_ms": 1250,
        }
        tx.execute(update(engines).values(healthy_boot_id=boot_id(), **scanned))
    numbers = await scrape(api)
    assert of(numbers, "hal0_backend_up", engine="default") == 1
    assert 7 <= (of(numbers, "hal0_engine_scan_age_seconds", engine="default") or 0) < 100
    assert of(numbers, "hal0_idle_scan_duration_seconds", engine="default") == 1.25
    assert of(numbers, "hal0_fenced_writes_total") == 4, "those who have ended count too"
    beat = "hal0_worker_heartbeat_timestamp_seconds"
    assert of(numbers, beat, worker="worker-1") == pytest.approx(seen_at.timestamp())
    assert labels_of(numbers, beat, "worker") == {"worker-1"}
    assert of(numbers, "hal0_incidents_total", kind="engine_lost") == 1
    assert of(numbers, "hal0_incidents_unacknowledged") == 1


async def test_what_was_timed_before_the_host_started_is_not_told(
    api: httpx.AsyncClient, db: Database
) -> None:
    scanned = {"scanned_boot": "an earlier boot", "scanned_ms": 1, "scan_took_ms": 1250}
    with db.write() as tx:
        tx.execute(update(engines).values(**scanned))
    numbers = await scrape(api)
    for name in ("hal0_engine_scan_age_seconds", "hal0_idle_scan_duration_seconds"):
        assert not labels_of(numbers, name, "engine")


async def test_labels_are_closed_lists(api: httpx.AsyncClient, db: Database) -> None:
    numbers = await scrape(api)
    for name, label, values in (
        ("hal0_load_phase_seconds_sum", "phase", Phase),
        ("hal0_job_duration_seconds_sum", "kind", JobKind),
        ("hal0_incidents_total", "kind", IncidentKind),
        ("hal0_backend_drift_total", "kind", DRIFT),
        ("hal0_validation_failures_total", "code", REFUSALS),
    ):
        assert labels_of(numbers, name, label) == set(map(str, values)), name
    assert set(DRIFT) <= set(Cause)


async def test_this_process_is_told_too(
    api: httpx.AsyncClient, app: Starlette, db: Database
) -> None:
    with app.state.feed.listen("local"):
        numbers = await scrape(api)
    assert of(numbers, "hal0_event_streams") == 1
    assert of(numbers, "hal0_db_busy_total") == 0
    assert of(numbers, "process_start_time_seconds")
    app.state.db.times_busy += 2
    assert of(await scrape(api), "hal0_db_busy_total") == 2


@contextmanager
def counted(db: Database) -> Iterator[list[str]]:
    """Count the statements of readers while the block runs."""
    asked: list[str] = []

    def note(_c: object, _cursor: object, text: str, *_more: object) -> None:
        asked.append(text)

    event.listen(db._readers, "before_cursor_execute", note)
    yield asked
    event.remove(db._readers, "before_cursor_execute", note)


async def test_a_scrape_costs_the_same_statements_however_many_slots_there_are(
    api: httpx.AsyncClient, app: Starlette, db: Database
) -> None:
    costs = []
    for name in ("a", *(f"slot-{number}" for number in range(40))):
        make_slot(db, name)
        if name in ("a", "slot-39"):
            await scrape(api)
            with counted(app.state.db) as asked:
                await scrape(api)
            costs.append([text for text in asked if "FROM tokens" not in text])
    assert len(costs[0]) == len(costs[1]) < 15


class Slow(Tallies):
    """Counts the past when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def read_page(self, tx: Connection) -> bool:
        assert self.go_on.wait(LIMIT_S)
        return super().read_page(tx)


def test_a_scrape_does_not_wait_for_a_long_past_and_tells_no_half_of_it(db: Database) -> None:
    make_slots(db, "chat")
    slow = Slow()
    rows = Rows(db, lambda: 0, slow, patience_s=0.01)
    registry = CollectorRegistry()
    registry.register(rows)

    def told() -> set[str]:
        return {name for name, _ in numbers_in(generate_latest(registry).decode())}

    early = told()
    assert {"hal0_slot_state", "hal0_backend_up", "hal0_db_busy_total"} <= early
    assert not {"hal0_slot_state_changes_total", "hal0_load_seconds_count"} & early
    assert told() == early, "one counts, and who comes meanwhile does not wait either"
    slow.go_on.set()
    eventually(lambda: "hal0_slot_state_changes_total" in told())
    assert told() > early


def test_the_past_is_counted_anew_where_it_could_not_be_read(db: Database) -> None:
    make_slots(db, "chat")
    moody = MoodyDatabase(db.path)
    registry = registry_of(moody, lambda: 0)
    moody.is_away = True
    with pytest.raises(DatabaseUnwritable):
        generate_latest(registry)
    moody.is_away = False
    eventually(lambda: b"hal0_slot_state_changes_total{" in generate_latest(registry))
    moody.close()


async def test_counters_are_of_the_rows_that_are_kept_and_say_so(
    api: httpx.AsyncClient, db: Database
) -> None:
    text = await text_of(api)
    told = dict(re.findall(r"^# HELP (hal0_\w+) (.*)$", text, re.MULTILINE))
    types = dict(re.findall(r"^# TYPE (hal0_\w+) (\w+)$", text, re.MULTILINE))
    counted = {name for name, kind in types.items() if kind in ("counter", "histogram")}
    assert {name for name in counted if not told[name].endswith(KEPT)} == {"hal0_db_busy_total"}
