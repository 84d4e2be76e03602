"""What is counted from rows: once each, in whatever steps it is read, and as the views tell it."""

from sqlalchemy import delete, insert, text

from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import ChecksumMismatch, EngineRefused
from hal0.jobs import tallies
from hal0.jobs.ledger import claims, orders
from hal0.jobs.phases import Phase
from hal0.jobs.tallies import Tallies
from hal0.registry.catalog import RegisteredFile, register
from hal0.states import Cause, IncidentKind, JobKind, Outcome
from hal0.tables import job_attempts, prune_permits, transitions
from tests.ledger import claim_kind, die, end, fail, make_slots
from tests.mishaps import evict_all, load_all
from tests.rows import OPERATOR, ask_load, ask_unload, claim_next, make_slot


def read(db: Database, told: Tallies | None = None) -> Tallies:
    told = told or Tallies()
    with db.read() as tx:
        told.read(tx)
    return told


def all_of(told: Tallies) -> tuple[object, ...]:
    """Return everything that was counted."""
    counts = (told.moves, told.drift, told.incidents, told.attempts, told.rescues, told.refusals)
    times = (told.durations, told.waits, told.phases, {"": told.loads})
    return (
        *counts,
        told.pulled_bytes,
        *({key: (one.counts, round(one.sum_s, 6)) for key, one in by.items()} for by in times),
    )


def a_day(db: Database) -> None:
    """Let loads succeed, fail, be rescued and retried, and a failure cost others their model."""
    make_slots(db, "chat", "code", "evil")
    load_all(db, "chat", "code")
    evict_all(db)
    ask_load(db, "chat")
    held = claim_kind(db, JobKind.VALIDATE)
    die(db, held)
    fail(db, claim_next(db), ChecksumMismatch("no"))
    with db.write() as tx:
        orders.retry(tx, held.job.id, OPERATOR)
    run_load_of(db)
    ask_unload(db, "code")


def run_load_of(db: Database) -> None:
    """Run what is queued up to the end of a load."""
    while (held := claim_next(db)).job.kind is not JobKind.LOAD:
        end(db, held, Outcome.SKIPPED)
    fail(db, held, EngineRefused("it cannot"))


def test_what_happened_is_counted_by_what_it_was(db: Database) -> None:
    a_day(db)
    told = read(db)
    assert told.attempts[JobKind.LOAD, Outcome.DONE] == 2
    assert told.attempts[JobKind.LOAD, Outcome.FAILED] == 2
    assert told.attempts[JobKind.VALIDATE, Outcome.INTERRUPTED] == 1
    assert +told.rescues == {(JobKind.VALIDATE, "put_back"): 1}
    assert told.refusals["preload.checksum_mismatch"] == 1
    assert sum(told.refusals.values()) == 1
    assert told.drift[Cause.EVICTED_BY_ENGINE] == 2
    assert told.incidents[IncidentKind.LOAD_FAILED] == 1
    assert sum(told.loads.counts) == 4
    with db.read() as tx:
        rows = tx.execute(
            text("SELECT slot_id, to_state, cause, count(*) FROM transitions GROUP BY 1, 2, 3")
        )
        assert told.moves == {tuple(row[:3]): row[3] for row in rows}


def test_a_worker_that_died_too_often_is_a_rescue_that_failed(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    die(db, claim_next(db), crash_limit=1)
    assert +read(db).rescues == {(JobKind.PULL, "failed"): 1}


def test_it_is_the_same_in_whatever_steps_it_is_read(db: Database) -> None:
    steps = Tallies()
    make_slots(db, "one", "two", "three")
    read(db, steps)
    load_all(db, "three")
    for slot in ("one", "two", "one"):
        read(db, steps)
        ask_load(db, slot)
        for _ in range(2):
            end(db, claim_next(db), Outcome.SKIPPED)
            read(db, steps)
        held = claim_kind(db, JobKind.LOAD)
        fail(db, held, EngineRefused("no"))
        read(db, steps)
        with db.write() as tx:
            orders.retry(tx, held.job.id, OPERATOR)
        run_load_of(db)
    assert all_of(read(db, steps)) == all_of(read(db))
    assert all_of(read(db, steps)) == all_of(read(db))
    assert all_of(read(db, Tallies(at_once=2))) == all_of(steps)


def test_the_phases_add_up_to_the_whole_and_are_those_of_the_auditors_view(db: Database) -> None:
    make_slots(db, "chat", "code")
    load_all(db, "chat", "code")
    told = read(db)
    assert abs(sum(one.sum_s for one in told.phases.values()) - told.loads.sum_s) < 1e-6
    with db.read() as tx:
        views = tx.execute(text("SELECT * FROM audit_loads")).all()
    assert len(views) == sum(told.loads.counts) == 2
    for phase in (Phase.PULL, Phase.VALIDATE, Phase.UNLOAD, Phase.LOAD, Phase.WAITED):
        of_views = sum(getattr(row, f"{phase}_s") for row in views)
        assert abs(told.phases[phase].sum_s - of_views) < 0.01, phase
    assert abs(told.loads.sum_s - sum(row.total_s for row in views)) < 0.01


def test_times_are_counted_in_the_bucket_that_holds_them() -> None:
    told = tallies.Histogram()
    for seconds in (0, 1, 1.001, 600, 601):
        told.observe(seconds)
    assert (told.counts[0], told.counts[1], told.counts[-2], told.counts[-1]) == (2, 1, 1, 1)
    assert round(told.sum_s, 3) == 1203.001


def test_what_is_pruned_later_stays_counted(db: Database) -> None:
    a_day(db)
    told = read(db)
    before = all_of(told)
    with db.write() as tx:
        tx.execute(insert(prune_permits).values(id=1, actor="prune", at=utc_now()))
        tx.execute(delete(job_attempts))
        tx.execute(delete(transitions).where(transitions.c.id < 5))
        tx.execute(delete(prune_permits))
    assert all_of(read(db, told)) == before
    ask_load(db, "chat")
    end(db, claim_next(db), Outcome.SKIPPED)
    ask_load(db, "chat")
    assert sum(read(db, told).attempts.values()) >= sum(read(db).attempts.values())


def test_bytes_are_counted_of_files_that_were_brought_not_of_those_that_were_there(
    db: Database,
) -> None:
    models = db.path.parent / "models"
    files = [
        RegisteredFile("main", models / "a-1.gguf", "/data/a-1.gguf", 100, None),
        RegisteredFile("mmproj", models / "a-2.gguf", "/data/a-2.gguf", 7, None),
    ]
    with db.write() as tx:
        register(tx, "tiny", "gguf", files, allow_copy=False)
    make_slot(db, "chat", "tiny")
    ask_load(db)
    held = claim_next(db)
    how = {str(files[0].path): "downloaded", str(files[1].path): "there"}
    with db.write() as tx:
        claims.finish(tx, held, Outcome.DONE, {"files": how})
    assert read(db).pulled_bytes == 100
