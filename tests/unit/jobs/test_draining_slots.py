"""Which slots drain, told from rows alone: those that an operator's unload is next to empty."""

import pytest
from sqlalchemy import update

from hal0.db import Database
from hal0.errors import SlotPinned
from hal0.jobs.ledger import drains, intake
from hal0.jobs.ledger.intake import Wish
from hal0.jobs.ledger.rows import Job
from hal0.slots.queries import slot_named
from hal0.states import JobKind
from hal0.tables import slots
from tests.ledger import IDLE, end, make_slots, serve, served
from tests.rows import OPERATOR, ask_load, ask_unload, claim_next, options, run_load, slot_now

NO_LIMIT_S = 600.0


def _draining(db: Database, slot: str = "chat") -> Job | None:
    with db.read() as tx:
        return drains.draining(tx, slot_named(tx, slot).id)


def test_a_slot_drains_from_when_its_unload_is_asked_until_it_is_empty(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    assert _draining(db) is None
    (unload,) = ask_unload(db).job_ids
    for state in ("ready", "serving"):
        assert slot_now(db).state == state
        waiting = _draining(db)
        assert waiting is not None
        assert waiting.id == unload
        if state == "ready":
            serve(db)
    served(db)
    held = claim_next(db)
    assert _draining(db) is not None, "while it runs, too"
    end(db, held)
    assert _draining(db) is None


def test_a_load_drains_its_slot_only_to_put_something_else_there(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    other = ask_load(db, options=options({"ctx_size": 512}))
    assert _draining(db) is None, "its pull comes first"
    end(db, claim_next(db))
    assert _draining(db) is None, "and its validation"
    end(db, claim_next(db))
    draining = _draining(db)
    assert draining is not None
    assert draining.id == other.job_ids[2]


def test_a_machines_unload_drains_nothing(db: Database) -> None:
    """C16: whoever comes wins."""
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    with db.write() as tx:
        assert intake.machine_unload(tx, slot_named(tx, "chat"), IDLE)
    assert _draining(db) is None
    serve(db)
    assert claim_next(db).job.kind is JobKind.UNLOAD, "to be skipped at once"


def test_a_check_ahead_of_an_unload_holds_no_requests_up(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    with db.write() as tx:
        intake.request_check(tx, slot_named(tx, "chat"), Wish(JobKind.VALIDATE), OPERATOR)
    assert _draining(db) is None


def test_a_pinned_slot_drains_only_for_whoever_says_so(db: Database) -> None:
    make_slots(db, "chat")
    ask_load(db)
    run_load(db)
    with db.write() as tx:
        tx.execute(update(slots).values(pinned=True))
    with pytest.raises(SlotPinned):
        ask_unload(db, force=True)
    assert _draining(db) is None
    with db.write() as tx:
        slot = slot_named(tx, "chat")
        wish = Wish(JobKind.UNLOAD, drain_timeout_s=NO_LIMIT_S)
        intake.request_unload(tx, slot, wish, OPERATOR, even_if_pinned=True)
    assert _draining(db) is not None
