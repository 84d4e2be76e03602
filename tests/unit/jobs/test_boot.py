"""D14: what the first process on a new boot of the host writes before anything else."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from hal0.clock import boot_id, utc_now
from hal0.db import Database
from hal0.jobs.boot import first_act
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, SlotState
from hal0.tables import boots, engines, leases
from tests.ledger import (
    begin_pull,
    begin_validate,
    claim_kind,
    die,
    end,
    fail,
    history,
    job,
    make_slots,
    mark_sent,
    the_lanes,
)
from tests.rows import ask_load, ask_unload, claim_next, run_load, send_load, slot_now


def _earlier_boot(db: Database) -> None:
    """As if everything so far had happened before the host went down."""
    with db.write() as tx:
        tx.execute(insert(boots).values(boot_id="an earlier boot", first_seen_at=utc_now()))


def _ready(db: Database) -> None:
    ask_load(db)
    run_load(db)


def _idle(db: Database) -> None:
    _ready(db)
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.IDLE, Cause.DEMOTED, Act("scan"))


def _serving(db: Database) -> None:
    _ready(db)
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.SERVING, Cause.REQUEST_STARTED, Act("dispatcher"))
        row = {"slot_id": slot_now(db).id, "generation": 1, "owner_id": "api", "in_flight": 1}
        tx.execute(insert(leases).values(**row, at=utc_now()))


def _pulling(db: Database) -> None:
    ask_load(db)
    begin_pull(db, claim_next(db))


def _starting(db: Database) -> None:
    ask_load(db)
    begin_validate(db, claim_kind(db, JobKind.VALIDATE))


def _warming(db: Database) -> None:
    ask_load(db)
    send_load(db)


def _unloading(db: Database) -> None:
    _ready(db)
    ask_unload(db)
    mark_sent(db, claim_next(db))


@pytest.mark.parametrize(
    "get_there", [_ready, _idle, _serving, _pulling, _starting, _warming, _unloading]
)
def test_every_slot_that_is_neither_offline_nor_in_error_goes_offline(
    db: Database, get_there: Any
) -> None:
    make_slots(db, "chat")
    get_there(db)
    before = slot_now(db)
    _earlier_boot(db)
    assert first_act(db, "api") == 1
    after = slot_now(db)
    assert history(db)[-1] == f"{before.state}>offline host_rebooted"
    assert (after.desired, after.wanted_model_id) == (before.desired, before.wanted_model_id)
    assert (after.model_id, after.engine_model, after.engine_process) == (None, None, None)
    assert after.unload_job_id is None
    with db.read() as tx:
        assert tx.execute(select(leases)).all() == []


def test_what_is_offline_or_in_error_stays(db: Database) -> None:
    make_slots(db, "one", "two")
    ask_load(db, "two")
    held = claim_next(db)
    begin_pull(db, held)
    fail(db, held)
    _earlier_boot(db)
    assert first_act(db, "worker") == 0
    assert slot_now(db, "one").state is SlotState.OFFLINE
    assert slot_now(db, "two").state is SlotState.ERROR
    assert slot_now(db, "two").error is not None


def test_no_engine_counts_as_healthy_on_a_new_boot(db: Database) -> None:
    with db.write() as tx:
        tx.execute(update(engines).values(healthy_boot_id="an earlier boot", process="1-1"))
    _earlier_boot(db)
    first_act(db, "api")
    with db.read() as tx:
        row = tx.execute(select(engines.c.healthy_boot_id, engines.c.process)).one()
    assert tuple(row) == (None, None)


def test_the_first_boot_of_all_moves_nothing(db: Database) -> None:
    make_slots(db, "chat")
    _ready(db)
    assert first_act(db, "api") == 0
    assert slot_now(db).state is SlotState.READY
    with db.read() as tx:
        assert tx.execute(select(boots.c.boot_id)).scalars().all() == [boot_id()]


def test_only_the_first_process_of_a_boot_acts(db: Database) -> None:
    make_slots(db, "chat")
    _ready(db)
    _earlier_boot(db)
    assert [first_act(db, who) for who in ("api", "worker", "api")] == [1, 0, 0]
    ask_load(db)
    run_load(db)
    assert first_act(db, "worker") == 0
    assert slot_now(db).state is SlotState.READY


def test_of_two_processes_that_start_at_once_one_acts(db: Database) -> None:
    make_slots(db, "chat")
    _ready(db)
    _earlier_boot(db)
    barrier = threading.Barrier(2)

    def start(actor: str) -> int:
        barrier.wait(20)
        return first_act(db, actor)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(start, ["api", "worker"])) == [0, 1]
    assert [line for line in history(db) if line.endswith("host_rebooted")] == [
        "ready>offline host_rebooted"
    ]


def test_a_chain_that_was_under_way_goes_on_from_offline(db: Database) -> None:
    """No job is lost: its owner is of another boot, so rescue puts it back."""
    make_slots(db, "chat")
    ask_load(db)
    held = claim_kind(db, JobKind.VALIDATE)
    begin_validate(db, held)
    _earlier_boot(db)
    first_act(db, "worker")
    die(db, held)
    again = claim_next(db, "owner-2")
    assert again.job.id == held.job.id
    begin_validate(db, again)
    end(db, again)
    assert history(db)[-2:] == ["starting>offline host_rebooted", "offline>starting checked"]


def test_a_load_that_was_sent_before_the_reboot_is_not_sent_again(db: Database) -> None:
    """The mark stays: its next attempt watches, and finds another boot's lane."""
    make_slots(db, "chat")
    ask_load(db)
    sent = send_load(db)
    _earlier_boot(db)
    first_act(db, "worker")
    die(db, sent)
    again = claim_next(db, "owner-2")
    assert (again.job.id, again.job.was_sent) == (sent.job.id, True)
    assert len(the_lanes(db)) == 1
    assert job(db, sent.job.id).sent_attempt == 1
