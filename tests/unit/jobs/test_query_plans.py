"""What SQLite reads for the statements that run all the time: never the history of jobs.

SQLite takes a partial index only where it can prove the index's condition; a new `OR`, or an order
that another index gives, loses it silently. So each step is looked at, without statistics and with.
"""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, event

from hal0.db import Database
from hal0.jobs.figures import read_figures
from hal0.jobs.ledger.claims import claim, finish
from hal0.jobs.ledger.runnable import RUNNABLE, is_work_waiting, moment
from hal0.jobs.queries import JobFilter, job_page
from hal0.jobs.tallies import Tallies
from hal0.jobs.traces import JobTraces, jobs_since, newest, slot_traces
from hal0.slots.audit import AuditFilter, audit_page
from hal0.states import Cause, JobKind, JobState
from tests.ledger import make_slots
from tests.rows import ask_load

FINISHED = 10_000
PARTIAL = {
    "ix_jobs_queued",
    "ix_jobs_queued_slot",
    "ux_jobs_running_slot",
    "ux_jobs_running_pull",
    "ix_jobs_running_engine",
    "ix_jobs_running_owner",
}
BY_ID = "INTEGER PRIMARY KEY"
STEP = re.compile(
    rf"(?P<how>SCAN|SEARCH) (?P<table>\w+)(?: USING (?:COVERING )?(?:INDEX )?(?P<by>{BY_ID}|\w+))?"
)
ALIAS = re.compile(r"\bjobs(?: AS)? (?!SET\b|WHERE\b|ORDER\b|JOIN\b)(\w+)\b")

Work = Callable[[Connection], object]


@pytest.fixture(params=[False, True], ids=["", "analyzed"])
def history(db: Database, request: pytest.FixtureRequest) -> Database:
    """Ten thousand finished jobs, a few hundred of them failed or cancelled; a few that wait."""
    names = [f"s{number}" for number in range(5)]
    make_slots(db, *names)
    finished = f"""
        WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {FINISHED})
        INSERT INTO jobs (chain_id, slot_id, engine_id, model_id, kind, position, step, state,
          attempt, crashes, created_at)
        SELECT (i + 3) / 4, i % 5 + 1, 1, i % 5 + 1, 'validate', (i + 3) / 4, i % 4,
          CASE WHEN i % 50 = 0 THEN 'failed' WHEN i % 50 = 1 THEN 'cancelled' ELSE 'succeeded' END,
          1, 0, '2026-01-01T00:00:00.000000Z' FROM n"""
    chains = f"""
        WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {FINISHED // 4})
        INSERT INTO chains (slot_id, position, goal, origin, actor, rehash, force, created_at)
        SELECT i % 5 + 1, i, 'load', 'operator', 'me', 0, 0, '2026-01-01T00:00:00.000000Z' FROM n"""
    with db.write() as tx:
        tx.exec_driver_sql(chains)
        tx.exec_driver_sql(finished)
    for name in names:
        ask_load(db, name)
    if request.param:
        with db.write() as tx:
            tx.exec_driver_sql("ANALYZE")
    return db


def plans(tx: Connection, work: Work) -> list[tuple[str, list[re.Match[str]]]]:
    """Do some work; return each statement that it sent, with those steps of its plan that read."""
    sent: list[tuple[str, tuple[object, ...]]] = []

    @event.listens_for(tx, "before_cursor_execute")
    def _note(*args: object) -> None:
        sent.append((str(args[2]), tuple(args[3])))  # type: ignore[arg-type]

    work(tx)
    event.remove(tx, "before_cursor_execute", _note)
    found = []
    for sql, values in sent:
        steps = [str(row[3]) for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)]
        found.append((sql, [match for step in steps if (match := STEP.match(step))]))
    return found


def reads_of_jobs(tx: Connection, work: Work) -> list[tuple[str, str | None]]:
    """Return how (`SCAN` or `SEARCH`) and by which index each step reads `jobs`."""
    return [
        (step["how"], step["by"])
        for sql, steps in plans(tx, work)
        for step in steps
        if step["table"] in {"jobs", *ALIAS.findall(sql)}
    ]


def test_a_claim_never_looks_at_history(history: Database) -> None:
    with history.soft() as tx:
        reads = reads_of_jobs(tx, lambda tx: claim(tx, "owner-1"))
        reads += reads_of_jobs(tx, lambda tx: claim(tx, "owner-2", heavy=False))
    assert {by for how, by in reads if how == "SCAN"} == {"ix_jobs_queued"}
    assert {by for _, by in reads} <= PARTIAL | {BY_ID}
    assert PARTIAL - {by for _, by in reads} == {"ix_jobs_running_owner"}


def test_a_look_for_work_never_does_either(history: Database) -> None:
    """It goes past SQLAlchemy, so its statement is asked for directly."""
    with history.read() as tx:
        values = moment(heavy=True, fetches=True)
        asked = tx.connection.cursor().execute(f"EXPLAIN QUERY PLAN {RUNNABLE}", values)
        steps = [match for row in asked.fetchall() if (match := STEP.match(row[3]))]
        assert is_work_waiting(tx)
    reads = [step for step in steps if step["table"] in ALIAS.findall(RUNNABLE)]
    assert {step["by"] for step in reads if step["how"] == "SCAN"} == {"ix_jobs_queued"}
    assert {step["by"] for step in reads} == PARTIAL - {"ix_jobs_running_owner"}


def test_a_claim_finds_slot_and_chain_of_a_job_by_their_ids(history: Database) -> None:
    """With a thousand slots that let requests end it costs no more than a look at each job."""
    with history.read() as tx:
        values = moment(heavy=True, fetches=True)
        asked = tx.connection.cursor().execute(f"EXPLAIN QUERY PLAN {RUNNABLE}", values)
        steps = [match for row in asked.fetchall() if (match := STEP.match(row[3]))]
    others = {(step["table"], step["by"]) for step in steps if step["table"] in {"s", "c", "d"}}
    assert others == {(table, BY_ID) for table in ("s", "c", "d")}


def test_a_job_ends_by_its_id_and_looks_only_at_what_its_slot_does_next(history: Database) -> None:
    with history.soft() as tx:
        held = claim(tx, "owner-1")
    assert held is not None
    with history.write() as tx:
        reads = reads_of_jobs(tx, lambda tx: finish(tx, held))
    assert reads[0] == ("SEARCH", BY_ID)
    assert {how for how, _ in reads} == {"SEARCH"}
    assert {by for _, by in reads[1:]} == {"ix_jobs_queued_slot", "ux_jobs_running_slot"}


@pytest.mark.parametrize("before", [None, 5000])
@pytest.mark.parametrize("kind", [None, JobKind.VALIDATE])
@pytest.mark.parametrize(
    ("state", "indexes"),
    [
        (JobState.FAILED, {"ix_jobs_failed"}),
        (JobState.CANCELLED, {"ix_jobs_cancelled"}),
        (JobState.QUEUED, {"ix_jobs_queued", "ix_jobs_queued_slot"}),
        (JobState.RUNNING, {name for name in PARTIAL if "running" in name}),
    ],
)
def test_a_list_of_what_is_rare_is_read_by_its_index(
    history: Database, state: JobState, indexes: set[str], kind: JobKind | None, before: int | None
) -> None:
    with history.read() as tx:
        steps = plans(
            tx, lambda tx: job_page(tx, JobFilter(state=state, kind=kind), limit=20, before=before)
        )
    (found,) = steps[0][1]
    assert found["by"] in indexes, found.string


def look_for_events(tx: Connection) -> None:
    """Do what the reader of events does at each look."""
    slot_traces(tx, JobTraces(tx))
    newest(tx)
    jobs_since(tx, FINISHED, FINISHED)


def test_a_look_for_events_never_looks_at_history(history: Database) -> None:
    with history.read() as tx:
        reads = reads_of_jobs(tx, look_for_events)
    assert {by for how, by in reads if how == "SCAN"} <= PARTIAL | {None}
    assert {by for _, by in reads} <= PARTIAL | {BY_ID, None}
    assert reads.count(("SCAN", None)) == 1  # from the end, for the newest row alone


def test_a_scrape_never_does_either(history: Database) -> None:
    told = Tallies()
    with history.read() as tx:
        told.read(tx)
        reads = reads_of_jobs(tx, read_figures) + reads_of_jobs(tx, told.read)
    rare = {"ix_jobs_failed", "ix_jobs_chain_id"}
    assert {by for how, by in reads if how == "SCAN"} <= PARTIAL | {"ix_jobs_failed", None}
    assert {by for _, by in reads} <= PARTIAL | rare | {BY_ID, None}
    assert reads.count(("SCAN", None)) == 1  # from the end, for the newest row alone


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_cause_is_found_by_its_index(history: Database, newest_first: bool) -> None:
    wanted = AuditFilter(cause=Cause.EVICTED_BY_ENGINE)
    with history.read() as tx:
        ((_, steps),) = plans(
            tx, lambda tx: audit_page(tx, wanted, limit=20, newest_first=newest_first)
        )
    by = {step["table"]: (step["how"], step["by"]) for step in steps}
    assert by["transitions"] == ("SEARCH", "ix_transitions_cause")
