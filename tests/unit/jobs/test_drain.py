"""An unload of a slot that serves: it waits in the queue until the requests that run have ended."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import update

from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.jobs.ledger import drains, orders
from hal0.jobs.ledger.rows import job_by_id
from hal0.jobs.queries import job_detail
from hal0.states import SlotState
from hal0.tables import jobs
from tests.apis import the_leases
from tests.fakes.lemond import Lemond
from tests.ledger import (
    eventually,
    history,
    job,
    never,
    outcomes,
    serve,
    served,
    unfinished,
)
from tests.rows import OPERATOR, ask_load, ask_unload, options, slot_now
from tests.worker import Worker, equip, unloads

NO_LIMIT_S = 600.0


def _waiting_for(db: Database, job_id: int) -> str | None:
    with db.read() as tx:
        return job_detail(tx, job_id).waiting_for


def _attempts(db: Database, job_id: int) -> list[str]:
    with db.read() as tx:
        return [one.outcome for one in job_detail(tx, job_id).attempts]


def test_an_unload_is_claimed_when_the_last_request_has_ended_and_not_before(
    db: Database, lemond: Lemond, serving: Worker
) -> None:
    serve(db, api="another-api")
    (unload,) = ask_unload(db).job_ids
    assert serving.work() == []
    served(db)
    assert serving.work() == [], "another process has one still"
    served(db, api="another-api")
    serving.work()
    assert history(db)[-2:] == ["ready>unloading operator_unload", "unloading>offline unloaded"]
    assert (unloads(lemond), _attempts(db, unload)) == (["m-chat"], ["done"])


def test_a_waiting_unload_holds_no_thread_and_writes_nothing(
    db: Database, lemond: Lemond, serving: Worker
) -> None:
    (unload,) = ask_unload(db).job_ids
    never(serving.work, for_s=1.2)
    waiting = job(db, unload)
    assert (waiting.state, waiting.attempt, waiting.outcome) == ("queued", 0, None)
    assert _attempts(db, unload) == []


def test_a_waiting_unload_says_how_many_requests_since_when_and_until_when(
    db: Database, serving: Worker
) -> None:
    (unload,) = ask_unload(db, drain_timeout_s=90).job_ids
    assert str(_waiting_for(db, unload)).startswith("1 running request of this slot to end, since ")
    serve(db, requests=2)
    serve(db, requests=3, api="another-api")
    told = re.fullmatch(
        r"5 running requests of this slot to end, since (\S+), no longer than until (\S+)",
        str(_waiting_for(db, unload)),
    )
    assert told
    since, until = map(datetime.fromisoformat, told.groups())
    assert abs(utc_now() - since) < timedelta(seconds=30)
    assert abs(until - since - timedelta(seconds=90)) <= timedelta(seconds=1)
    served(db)
    served(db, api="another-api")
    assert _waiting_for(db, unload) is None


def test_an_unload_whose_time_is_over_fails_and_the_model_stays(
    db: Database, lemond: Lemond, serving: Worker
) -> None:
    (unload,) = ask_unload(db, drain_timeout_s=0.3).job_ids
    eventually(lambda: serving.work() or not unfinished(db))
    error = job(db, unload).error or {}
    assert (error["code"], error["evidence"]["limit_s"]) == ("slot.drain_timeout", 0.3)
    assert (slot_now(db).state, len(the_leases(db))) == (SlotState.SERVING, 1)
    assert (unloads(lemond), _attempts(db, unload)) == ([], ["failed"])
    with db.read() as tx:
        assert drains.draining(tx, slot_now(db).id) is None, "new requests may enter again"


def test_the_time_to_drain_begins_when_the_unload_is_the_first_in_line(
    db: Database, serving: Worker
) -> None:
    """What a load's pull and validation take before is no request's loss."""
    other = options({"ctx_size": 512})
    pull, validate, unload, _ = ask_load(db, options=other, drain_timeout_s=NO_LIMIT_S).job_ids
    serving.run(serving.claim())
    held = serving.claim()
    assert (held.job.id, pull < held.job.id) == (validate, True)
    assert job(db, unload).deferred_ms is None
    before_ms = monotonic_ms()
    serving.run(held)
    began_ms = job(db, unload).deferred_ms
    assert began_ms is not None
    assert began_ms >= before_ms
    assert serving.work() == []
    served(db)
    serving.work()
    assert "ready>unloading replaced" in history(db)
    assert slot_now(db).held_options == other


def test_a_load_of_what_is_served_already_waits_for_no_request(
    db: Database, serving: Worker
) -> None:
    steps = ask_load(db, rehash=True).job_ids
    with db.read() as tx:
        assert drains.draining(tx, slot_now(db).id) is None
    serving.work()
    assert outcomes(db, steps) == ["skipped", "done", "skipped", "skipped"]
    assert slot_now(db).state is SlotState.SERVING


def test_an_unload_that_was_not_told_how_long_gets_the_setting(
    db: Database, make_worker: Callable[..., Worker], lemond: Lemond
) -> None:
    """As one that an older hal0 queued: the attempt that meets requests writes down their time."""
    worker = make_worker(drain_timeout_s=77)
    equip(db, "chat")
    ask_load(db)
    worker.work()
    serve(db)
    (unload,) = ask_unload(db, drain_timeout_s=None).job_ids
    worker.work()
    assert _attempts(db, unload) == ["deferred"]
    with db.read() as tx:
        assert 70 < drains.left_s(tx, job(db, unload)) <= 77
    assert worker.work() == [], "it looks once"
    served(db)
    worker.work()
    assert slot_now(db).state is SlotState.OFFLINE


def test_an_unload_that_is_retried_waits_anew(db: Database, serving: Worker) -> None:
    (unload,) = ask_unload(db, drain_timeout_s=1.0).job_ids
    with db.write() as tx:
        tx.execute(update(jobs).values(deferred_ms=monotonic_ms() - 1000))
    serving.work()
    assert job(db, unload).state == "failed"
    with db.write() as tx:
        orders.retry(tx, unload, OPERATOR)
        assert drains.left_s(tx, job_by_id(tx, unload)) > 0.0
    assert _attempts(db, unload) == ["failed"]
