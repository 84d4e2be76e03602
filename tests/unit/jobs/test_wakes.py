"""What a request sets going for a slot that is offline: one machine's load, counted like any."""

import pytest

from hal0.db import Database
from hal0.errors import SlotNotFound
from hal0.jobs.ledger.breaker import PARKED_AFTER, breakers_of
from hal0.jobs.ledger.intake import Wish, request_check
from hal0.jobs.ledger.lane import unmark_load
from hal0.jobs.restore import load_again, restore_of
from hal0.jobs.setup import delete_slot
from hal0.jobs.wakes import request_wake
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, Origin, SlotState
from tests.ledger import fail, make_slots
from tests.rows import (
    OPERATOR,
    ask_load,
    claim_next,
    make_slot,
    options,
    run_load,
    send_load,
    slot_now,
)
from tests.unit.jobs.waking import (
    WAKE,
    chain_of,
    count_chains,
    idle_unload,
    load,
    lose,
    set_up,
    wake_up,
)


def test_a_slot_that_was_never_loaded_is_loaded_as_a_wake_and_wanted_so(db: Database) -> None:
    make_slots(db, "chat")
    accepted = wake_up(db)
    chain = chain_of(db, accepted)
    assert (chain.origin, chain.goal, chain.actor, chain.request_id) == (
        "wake",
        "load",
        "somebody",
        "request-7",
    )
    assert chain.model_id == slot_now(db).wanted_model_id
    assert chain.options == slot_now(db).options
    assert accepted is not None
    assert len(accepted.job_ids) == 4
    assert (slot_now(db).desired, slot_now(db).desired_by) == ("loaded", "wake")


def test_a_second_request_enqueues_nothing(db: Database) -> None:
    make_slots(db, "chat")
    wake_up(db)
    assert wake_up(db) is None
    assert count_chains(db) == 1


def test_a_slot_that_was_loaded_since_it_was_read_is_left_as_it_is(db: Database) -> None:
    make_slots(db, "chat")
    was = slot_now(db)
    load(db)
    with db.write() as tx:
        assert request_wake(tx, was, WAKE) is None
    assert count_chains(db) == 1


def test_a_slot_at_work_is_left_as_it_is(db: Database) -> None:
    """Its chain may be an operator's, who did not say that it is to be loaded."""
    make_slots(db, "chat")
    with db.write() as tx:
        request_check(tx, slot_now(db), Wish(JobKind.VALIDATE), OPERATOR)
    before = slot_now(db)
    assert wake_up(db) is None
    assert slot_now(db) == before


@pytest.mark.parametrize("state", ["ready", "starting", "error"])
def test_only_an_offline_slot_is_woken(db: Database, state: str) -> None:
    make_slots(db, "chat")
    ask_load(db)
    if state == "ready":
        run_load(db)
    else:
        held = claim_next(db)
        with db.write() as tx:
            move(tx, slot_now(db), SlotState.STARTING, Cause.CHECKED, held.act)
        if state == "error":
            fail(db, held)
    before = count_chains(db)
    assert slot_now(db).state == state
    assert wake_up(db) is None
    assert count_chains(db) == before


def test_what_its_engine_lost_is_woken_with_what_it_had(db: Database) -> None:
    """The note of what a machine is to load again becomes the wake, once."""
    make_slots(db, "chat")
    ask_load(db, options=options({"ctx_size": 512}))
    run_load(db)
    set_up(db, options=options({"ctx_size": 1024}))
    was = lose(db, Cause.EVICTED_BY_ENGINE)
    note = {"cause": "evicted_by_engine", "model_id": was.model_id, "options": was.held_options}
    set_up(db, restore={**note, "job_id": None})
    chain = chain_of(db, wake_up(db))
    assert (chain.options or {})["ctx_size"] == 512
    assert restore_of(slot_now(db)) is None


def test_a_wake_that_never_reached_its_engine_is_not_counted(db: Database) -> None:
    make_slots(db, "chat")
    wake_up(db)
    sent = send_load(db)
    with db.write() as tx:
        unmark_load(tx, sent)
        assert breakers_of(tx) == {}


def test_what_was_unloaded_in_good_order_begins_its_count_anew(db: Database) -> None:
    """Else a slot that is unloaded soon, and woken often, would be parked for nothing."""
    make_slots(db, "chat")
    for _ in range(PARKED_AFTER + 2):
        assert wake_up(db) is not None
        run_load(db)
        with db.read() as tx:
            assert breakers_of(tx)[slot_now(db).id].sent == 1
        idle_unload(db)


def test_an_operator_takes_over_the_chain_of_a_wake(db: Database) -> None:
    make_slots(db, "chat")
    woken = wake_up(db)
    taken = ask_load(db)
    assert taken.deduplicated
    assert chain_of(db, woken).origin == "operator"
    run_load(db)
    with db.read() as tx:
        assert breakers_of(tx) == {}, "nor does it count any more"


def test_a_restore_that_is_under_way_is_joined(db: Database) -> None:
    make_slots(db, "chat")
    load(db)
    was = lose(db, Cause.ENGINE_RESTARTED)
    with db.write() as tx:
        load_again(tx, was, Cause.ENGINE_RESTARTED, None)
    assert wake_up(db) is None
    assert claim_next(db).chain.origin is Origin.RESTORE


def test_a_slot_that_was_deleted_is_not_found(db: Database) -> None:
    make_slots(db, "chat")
    was = slot_now(db)
    with db.write() as tx:
        delete_slot(tx, was, OPERATOR)
    with pytest.raises(SlotNotFound), db.write() as tx:
        request_wake(tx, was, WAKE)
    make_slot(db)
    with pytest.raises(SlotNotFound), db.write() as tx:
        request_wake(tx, was, WAKE)
