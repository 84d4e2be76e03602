"""What somebody types to choose rows: what it means, and what is said when it means nothing."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch, EngineRefused, InvalidRequest, SlotNotFound
from hal0.jobs.bulk import BulkFilter, cancel_all, newest_failures, open_jobs
from hal0.jobs.filters import (
    OF_AUDIT,
    OF_JOBS,
    audit_filter,
    bulk_filter,
    completions,
    job_filter,
)
from hal0.jobs.ledger.rows import By
from hal0.jobs.queries import JobFilter, job_page
from hal0.slots.audit import audit_page
from hal0.states import Cause, JobKind, JobState, SlotState
from tests.rows import ask_load, fail_next, make_model, make_slot, run_load

ALICE, BOB = By("alice"), By("bob")


@pytest.fixture
def furnished(db: Database) -> Database:
    """`chat` is loaded by alice's jobs 1 to 4, job 5 of bob failed, 9 of alice is queued."""
    for slot in ("chat", "broken", "waiting"):
        make_model(db, f"of-{slot}")
        make_slot(db, slot, f"of-{slot}")
    ask_load(db, "chat", by=ALICE)
    run_load(db)
    ask_load(db, "broken", by=BOB)
    fail_next(db, ChecksumMismatch("bad bytes"))
    ask_load(db, "waiting", by=ALICE)
    return db


def jobs_of(db: Database, text: str) -> list[int]:
    with db.read() as tx:
        return [detail.job.id for detail in job_page(tx, job_filter(text), limit=100)]


def test_terms_are_read_into_a_filter_and_all_must_fit() -> None:
    read = job_filter("  slot:chat state:failed   kind:load code:x.y actor:bob ")
    assert read == JobFilter("chat", JobState.FAILED, JobKind.LOAD, "x.y", "bob")
    assert job_filter("") == JobFilter()


@pytest.mark.parametrize(
    ("text", "jobs"),
    [
        ("state:failed", [5]),
        ("code:preload.checksum_mismatch", [5]),
        ("actor:bob", [8, 7, 6, 5]),
        ("actor:alice kind:load", [12, 4]),
        ("slot:broken state:failed code:preload.checksum_mismatch since:2h", [5]),
        ("state:failed actor:alice", []),
        ("slot:chat since:1h kind:pull", [1]),
        ("since:2199-01-01", [12, 11, 10, 9]),
        ("until:2199-01-01 state:failed", [5]),
        ("until:1h", []),
        ("since:1h until:2199-01-01 slot:chat", [4, 3, 2, 1]),
    ],
)
def test_jobs_are_found_by_what_is_typed(furnished: Database, text: str, jobs: list[int]) -> None:
    assert jobs_of(furnished, text) == jobs


def test_the_audit_is_found_by_what_is_typed(furnished: Database) -> None:
    with furnished.read() as tx:
        wanted = audit_filter(tx, "slot:chat state:ready cause:loaded actor:worker job:4")
        rows = audit_page(tx, wanted, limit=10)
        assert [(row.slot, row.to_state, row.job_id) for row in rows] == [("chat", "ready", 4)]
        assert audit_page(tx, audit_filter(tx, "incident:7"), limit=10) == []
        assert audit_page(tx, audit_filter(tx, "since:1h"), limit=100) != []
        assert audit_page(tx, audit_filter(tx, "since:1h until:2199-01-01"), limit=100) != []
        assert audit_page(tx, audit_filter(tx, "until:1h"), limit=100) == []
        with pytest.raises(SlotNotFound):
            audit_filter(tx, "slot:nobody")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("failed", "'failed' is no term; write slot:…, state:…"),
        ("slot:", "'slot:' is no term"),
        ("colour:red", "'colour' is no key; use one of slot, state, kind, code, actor, since, un"),
        ("slot:a slot:b", "slot is given twice; leave one out"),
        ("state:broken", "state:broken is none there is; use queued, running, succeeded, failed"),
        ("kind:x", "use pull, validate, unload, load"),
        ("since:soon", "give how long ago (since:90m, since:2h, since:3d) or a time of UTC"),
        ("since:999999999w", "since:999999999w is no time"),
        ("until:12", "until:12 is no time; give how long ago (until:90m, until:2h, until:3d)"),
        ("slot:" + "a" * 600, "takes 500 characters at most"),
    ],
)
def test_what_means_nothing_is_told_with_what_would(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        job_filter(text)
    assert told in refused.value.detail
    assert refused.value.evidence["fields"][0]["field"] == "filter"


@given(st.text(max_size=80))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(job_filter(text), JobFilter)


def test_a_time_is_of_utc_and_so_long_ago_is_of_now() -> None:
    assert job_filter("since:2026-11-01T12:00").since == datetime(2026, 11, 1, 12, tzinfo=UTC)
    with freeze_time("2026-11-01 23:30:00"):
        today = job_filter("since:14:00 until:14:10:30")
    assert today.since == datetime(2026, 11, 1, 14, tzinfo=UTC)
    assert today.until == datetime(2026, 11, 1, 14, 10, 30, tzinfo=UTC)
    ago = job_filter("since:2h").since
    assert ago is not None
    assert timedelta(hours=1.9) < utc_now() - ago < timedelta(hours=2.1)


def test_a_bulk_takes_only_what_can_be_meant() -> None:
    assert bulk_filter("state:failed slot:chat", JobState.FAILED) == BulkFilter("chat")
    assert bulk_filter("state:queued", None) == BulkFilter()
    for text, state in (("state:running", JobState.FAILED), ("state:failed", None)):
        with pytest.raises(InvalidRequest, match="cannot be meant"):
            bulk_filter(text, state)


def test_a_bulk_takes_nothing_of_what_came_later(furnished: Database) -> None:
    with furnished.read() as tx:
        for text, failed, unfinished in (
            ("until:1h", [], []),
            ("until:2199-01-01", [5], [9]),
        ):
            retried = newest_failures(tx, bulk_filter(text, JobState.FAILED))
            assert [job.id for _, job in retried] == failed
            assert [job.id for _, job in open_jobs(tx, bulk_filter(text, None))] == unfinished


def test_a_bulk_retry_takes_the_chosen_and_those_of_an_actor_and_a_time(
    furnished: Database,
) -> None:
    def found(wanted: BulkFilter) -> list[int]:
        with furnished.read() as tx:
            return [job.id for _, job in newest_failures(tx, wanted)]

    assert found(BulkFilter(actor="bob")) == found(BulkFilter(job_ids=frozenset({5, 9}))) == [5]
    assert found(BulkFilter(actor="alice")) == found(BulkFilter(job_ids=frozenset({9}))) == []
    assert found(BulkFilter(since=utc_now() - timedelta(hours=1))) == [5]
    assert found(BulkFilter(since=utc_now() + timedelta(hours=1))) == []


def test_a_bulk_cancel_takes_each_open_chain_once_and_tells_what_it_could_not(
    furnished: Database,
) -> None:
    with furnished.read() as tx:
        assert [(slot, job.id) for slot, job in open_jobs(tx, BulkFilter())] == [("waiting", 9)]
        assert open_jobs(tx, BulkFilter(actor="bob")) == []
    with furnished.write() as tx:
        results = cancel_all(tx, BulkFilter(), ALICE)
    assert [(one.slot, one.job_ids, one.refusal) for one in results] == [
        ("waiting", (9, 10, 11, 12), None)
    ]


def test_a_failure_is_found_however_many_succeeded_since(db: Database) -> None:
    make_model(db, "tiny")
    make_slot(db, "chat", "tiny")
    ask_load(db)
    fail_next(db, EngineRefused("no"))
    ask_load(db)
    run_load(db)
    assert jobs_of(db, "code:engine.refused state:failed") == [1]


def test_every_term_that_is_offered_can_be_read(furnished: Database) -> None:
    with furnished.read() as tx:
        for term in completions(tx, OF_JOBS):
            job_filter(term)
        for term in completions(tx, OF_AUDIT):
            if not term.endswith(":"):
                audit_filter(tx, term)
        offered = completions(tx, OF_AUDIT)
    assert {"slot:chat", f"state:{SlotState.ERROR}", f"cause:{Cause.LOADED}"} <= {*offered}


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_time_that_utc_does_not_have_is_refused(at: str) -> None:
    with pytest.raises(InvalidRequest, match="is no time"):
        job_filter(f"since:{at}")
