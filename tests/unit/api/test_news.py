"""What a look tells of what was committed since the one before: each once, as REST shows it."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import insert, update

from hal0.api import news
from hal0.api.news import News
from hal0.api.views import job_json
from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import EngineRefused
from hal0.jobs.ledger import claims, orders
from hal0.jobs.queries import JobFilter, job_page
from hal0.settings import Settings
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, Outcome, SlotState
from hal0.tables import incidents, job_progress, leases, models, slots
from tests.ledger import end, fail, make_slots, serve, served
from tests.rows import OPERATOR, ask_load, ask_unload, claim_next, run_load, slot_now


class Looker:
    """Looks, and reads what it was told."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self.news = News(settings, db)
        self.look()

    def look(self) -> list[tuple[str, Any]]:
        """Return the events of a look: name and data."""
        blocks = self.news.look(with_snapshot=False).news.decode().split("\n\n")[:-1]
        return [self._event(block) for block in blocks]

    def named(self, name: str) -> list[Any]:
        """Return what a look tells under a name."""
        return [data for said, data in self.look() if said == name]

    def snapshot(self) -> dict[str, Any]:
        """Return how everything is."""
        told = self.news.look(with_snapshot=True).snapshot
        assert told is not None
        return dict(self._event(told.decode().strip())[1])

    @staticmethod
    def _event(block: str) -> tuple[str, Any]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        return fields["event"], json.loads(fields["data"])


@pytest.fixture
def looker(settings: Settings, db: Database) -> Iterator[Looker]:
    make_slots(db, "chat", "code")
    looker = Looker(settings, db)
    yield looker
    looker.news.close()


def progress(db: Database, job_id: int, done_bytes: int) -> None:
    """Write how far a job is."""
    row = {"job_id": job_id, "attempt": 1, "phase": "fetch", "total_bytes": 100, "at": utc_now()}
    with db.soft() as tx:
        tx.execute(job_progress.delete())
        tx.execute(insert(job_progress).values(done_bytes=done_bytes, **row))


def jobs_now(db: Database) -> dict[int, Any]:
    """Return all jobs as REST shows them."""
    with db.read() as tx:
        listed = job_page(tx, JobFilter(), limit=1000)
    return {detail.job.id: json.loads(json.dumps(job_json(detail))) for detail in listed}


def test_nothing_new_is_nothing_told(looker: Looker, db: Database) -> None:
    assert looker.look() == []
    with db.soft() as tx:
        tx.execute(update(models).values(allow_copy=1))
    assert looker.look() == []


def test_a_move_is_told_as_a_row_and_as_a_slot_and_no_other_slot_is(
    looker: Looker, db: Database
) -> None:
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.STARTING, Cause.CHECKED, Act("test"))
    (first, row), (second, slot) = looker.look()
    assert (first, row["slot"], row["to"]) == ("transition", "chat", "starting")
    assert (second, slot["name"], slot["state"]) == ("slot", "chat", "starting")
    assert looker.look() == []


def test_requests_in_flight_are_told(looker: Looker, db: Database) -> None:
    ask_load(db)
    run_load(db)
    looker.look()
    serve(db, requests=2)
    assert looker.named("slot")[0]["in_flight"] == 2
    with db.soft() as tx:
        tx.execute(update(leases).values(in_flight=3))
    assert looker.named("slot")[0]["in_flight"] == 3
    served(db)
    assert [slot["in_flight"] for slot in looker.named("slot")] == [0]


def test_each_step_of_a_job_is_told_once_and_the_last_one_too(looker: Looker, db: Database) -> None:
    asked = ask_load(db)
    assert [job["id"] for job in looker.named("job")] == list(asked.job_ids)
    held = claim_next(db)
    assert {job["id"]: job["state"] for job in looker.named("job")}[held.job.id] == "running"
    end(db, held, Outcome.SKIPPED)
    told = {job["id"]: job for job in looker.named("job")}
    assert told[held.job.id] == jobs_now(db)[held.job.id]
    assert told[held.job.id]["outcome"] == "skipped"
    assert looker.named("job") == []


def test_a_line_that_moves_on_is_told_of_those_who_wait_in_it(looker: Looker, db: Database) -> None:
    ask_load(db)
    looker.look()
    held = claim_next(db)
    looker.look()
    end(db, held, Outcome.SKIPPED)
    told = {job["id"]: job["waiting_for"] for job in looker.named("job")}
    assert told == {
        job_id: job["waiting_for"]
        for job_id, job in jobs_now(db).items()
        if job["state"] in ("queued", "succeeded")
    }


def test_a_job_that_came_and_went_between_two_looks_is_told(looker: Looker, db: Database) -> None:
    asked = ask_unload(db, "chat")
    if asked.job_ids:
        end(db, claim_next(db), Outcome.SKIPPED)
    asked = ask_load(db, "code")
    fail(db, claim_next(db), EngineRefused("no"))
    told = {job["id"]: job["state"] for job in looker.named("job")}
    assert told == {job_id: jobs_now(db)[job_id]["state"] for job_id in told}
    assert set(asked.job_ids) <= set(told)
    assert set(told.values()) <= {"succeeded", "failed", "cancelled"}


def test_a_job_that_was_retried_and_failed_again_between_two_looks_is_told(
    looker: Looker, db: Database
) -> None:
    ask_load(db, "code")
    held = claim_next(db)
    fail(db, held, EngineRefused("no"))
    looker.look()
    with db.write() as tx:
        orders.retry(tx, held.job.id, OPERATOR)
    fail(db, claim_next(db), EngineRefused("no again"))
    told = {job["id"]: job for job in looker.named("job")}
    assert told[held.job.id]["error"]["detail"] == "no again"
    assert len(told[held.job.id]["attempts"]) == 2


def test_jobs_that_are_cancelled_before_they_run_are_told(looker: Looker, db: Database) -> None:
    asked = ask_load(db)
    looker.look()
    with db.write() as tx:
        orders.cancel(tx, asked.job_ids[0], OPERATOR)
    told = {job["id"]: job["state"] for job in looker.named("job")}
    assert told == dict.fromkeys(asked.job_ids, "cancelled")
    assert looker.snapshot()["jobs"] == []


def test_an_attempt_that_ended_and_a_job_that_was_put_back_are_told(
    looker: Looker, db: Database
) -> None:
    ask_load(db)
    held = claim_next(db)
    looker.look()
    with db.write() as tx:
        claims.put_back(tx, held, Outcome.INTERRUPTED)
    told = {job["id"]: job for job in looker.named("job")}
    assert told[held.job.id]["state"] == "queued"
    assert [one["outcome"] for one in told[held.job.id]["attempts"]] == ["interrupted"]


def test_progress_is_told_once_a_second_and_the_last_of_it_without_another_commit(
    looker: Looker, db: Database
) -> None:
    ask_load(db)
    held = claim_next(db)
    looker.look()
    progress(db, held.job.id, 10)
    assert looker.named("job") == []
    looker.news._progress_ms[held.job.id] -= news.PROGRESS_MS
    assert [job["progress"]["done_bytes"] for job in looker.named("job")] == [10]
    progress(db, held.job.id, 20)
    assert looker.named("job") == []
    progress(db, held.job.id, 30)
    assert looker.named("job") == []
    looker.news._progress_ms[held.job.id] -= news.PROGRESS_MS
    assert [job["progress"]["done_bytes"] for job in looker.named("job")] == [30]
    assert looker.named("job") == []


def test_an_incident_is_told_when_it_comes_and_when_it_is_acknowledged(
    looker: Looker, db: Database
) -> None:
    row = {"engine_id": 1, "kind": "engine_restarted", "detail": "it restarted", "at": utc_now()}
    with db.write() as tx:
        tx.execute(insert(incidents).values(**row))
    assert [one["id"] for one in looker.named("incident")] == [1]
    assert [one["id"] for one in looker.snapshot()["incidents"]] == [1]
    assert looker.named("incident") == []
    with db.write() as tx:
        tx.execute(update(incidents).values(acked_at=utc_now(), acked_by="ops"))
    assert [one["acked_by"] for one in looker.named("incident")] == ["ops"]
    assert looker.snapshot()["incidents"] == []


def test_an_incident_is_told_again_when_a_slot_of_it_is_back(looker: Looker, db: Database) -> None:
    ask_load(db)
    run_load(db)
    row = {"engine_id": 1, "kind": "engine_restarted", "detail": "it restarted", "at": utc_now()}
    with db.write() as tx:
        tx.execute(insert(incidents).values(**row))
        act = Act("reconcile", incident_id=1)
        move(tx, slot_now(db), SlotState.OFFLINE, Cause.ENGINE_RESTARTED, act)
        tx.execute(update(slots).where(slots.c.name == "chat").values(model_id=None))
    assert [one["slots"][0]["back_at"] for one in looker.named("incident")] == [None]
    ask_load(db)
    run_load(db)
    assert looker.named("incident")[-1]["slots"][0]["back_at"] is not None
    assert looker.look() == []


def test_a_snapshot_is_what_was_told_so_far(looker: Looker, db: Database) -> None:
    ask_load(db)
    held = claim_next(db)
    begin = looker.snapshot()
    assert [slot["name"] for slot in begin["slots"]] == ["chat", "code"]
    assert [job["id"] for job in begin["jobs"]] == [*jobs_now(db)][::-1]
    end(db, held, Outcome.SKIPPED)
    after = looker.snapshot()
    assert held.job.id not in [job["id"] for job in after["jobs"]]
    assert after["jobs"][0] == jobs_now(db)[after["jobs"][0]["id"]]


def test_a_snapshot_says_when_it_was_made_though_nothing_has_changed_for_long(
    looker: Looker, db: Database
) -> None:
    first = looker.snapshot()
    before = utc_now()
    second = looker.snapshot()
    assert datetime.fromisoformat(first["at"]) <= before <= datetime.fromisoformat(second["at"])
    assert {**first, "at": None} == {**second, "at": None}


def test_more_rows_than_one_look_reads_come_with_the_next_ones(
    looker: Looker, db: Database
) -> None:
    with db.write() as tx:
        for number in range(news.PAGE + 5):
            there = SlotState.OFFLINE if number % 2 else SlotState.STARTING
            cause = Cause.VALIDATED if number % 2 else Cause.CHECKED
            move(tx, slot_named(tx, "chat"), there, cause, Act("test"))
    first = looker.named("transition")
    second = looker.named("transition")
    assert [len(first), len(second)] == [news.PAGE, 5]
    assert [row["id"] for row in first + second] == list(
        range(first[0]["id"], first[0]["id"] + news.PAGE + 5)
    )
    assert looker.look() == []
