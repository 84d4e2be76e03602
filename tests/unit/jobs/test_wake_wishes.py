"""Whose wish keeps a request from loading a slot: a person's, and no machine's."""

import pytest

from hal0.db import Database
from hal0.errors import SlotUnloaded
from hal0.jobs.ledger.intake import Wish, machine_unload, request_unload
from hal0.jobs.ledger.orders import cancel, retry
from hal0.jobs.ledger.rows import By
from hal0.slots.transitions import move
from hal0.slots.wishes import want
from hal0.states import Cause, Desired, DesiredBy, JobKind, SlotState
from tests.ledger import IDLE, end, fail, make_slots, unfinished
from tests.rows import (
    OPERATOR,
    ask_load,
    ask_unload,
    claim_next,
    make_slot,
    run_load,
    skip_to_load,
    slot_now,
)
from tests.unit.jobs.waking import (
    chain_of,
    idle_unload,
    load,
    refusal,
    run_unload,
    set_up,
    unload_elsewhere,
    wake_up,
)


def _wanted(db: Database) -> tuple[str, str]:
    slot = slot_now(db)
    return slot.desired, slot.desired_by


def test_each_wish_says_whose_it_is(db: Database) -> None:
    make_slots(db, "chat")
    assert _wanted(db) == ("unloaded", "nobody")
    wake_up(db)
    assert _wanted(db) == ("loaded", "wake")
    assert ask_load(db).deduplicated
    assert _wanted(db) == ("loaded", "operator")
    run_load(db)
    idle_unload(db)
    assert _wanted(db) == ("unloaded", "idle")
    ask_load(db)
    run_load(db)
    unload_elsewhere(db)
    assert _wanted(db) == ("unloaded", "elsewhere")
    ask_unload(db)
    assert _wanted(db) == ("unloaded", "operator")


@pytest.mark.parametrize("goal", ["load", "unload"])
def test_a_job_that_is_tried_again_is_wanted_by_who_tries_it(db: Database, goal: str) -> None:
    make_slots(db, "chat")
    load(db)
    if goal == "load":
        ask_load(db, options={"ctx_size": 512})
    else:
        with db.write() as tx:
            machine_unload(tx, slot_now(db), IDLE)
    held = claim_next(db)
    fail(db, held)
    with db.write() as tx:
        want(tx, slot_now(db).id, Desired.LOADED, DesiredBy.WAKE)
        retry(tx, held.job.id, OPERATOR)
    assert _wanted(db) == (f"{goal}ed", "operator")


def test_what_a_machine_unloaded_because_nobody_used_it_is_woken(db: Database) -> None:
    make_slots(db, "chat")
    load(db)
    idle_unload(db)
    assert slot_now(db).desired == "unloaded"
    assert chain_of(db, wake_up(db)).origin == "wake"
    assert slot_now(db).desired == "loaded"


def test_what_an_operator_unloaded_is_not_woken(db: Database) -> None:
    make_slots(db, "chat")
    load(db)
    ask_unload(db)
    run_unload(db)
    refused = refusal(db)
    assert isinstance(refused, SlotUnloaded)
    assert (refused.status, refused.retry_after_s) == (503, None)
    assert "an operator wants it unloaded" in refused.detail
    assert "hal0 slot load chat" in refused.detail
    assert refused.evidence["desired_by"] == "operator"


@pytest.mark.parametrize("was", ["unused", "new", "woken"])
def test_what_an_operator_wants_unloaded_though_it_is_offline_already_is_not_woken(
    db: Database, was: str
) -> None:
    """There is nothing to do, and no row of the audit tells of it: the slot's own row does."""
    make_slots(db, "chat")
    if was != "new":
        load(db)
        idle_unload(db)
    if was == "woken":
        wake_up(db)
        run_load(db)
        idle_unload(db)
    assert ask_unload(db).already
    assert isinstance(refusal(db), SlotUnloaded)
    ask_load(db)
    run_load(db)
    idle_unload(db)
    assert wake_up(db) is not None, "a later wish is another's"


def test_what_an_operator_wanted_unloaded_while_the_machine_did_it_is_not_woken(
    db: Database,
) -> None:
    make_slots(db, "chat")
    load(db)
    with db.write() as tx:
        machine_unload(tx, slot_now(db), IDLE)
    assert ask_unload(db).deduplicated
    run_unload(db)
    assert isinstance(refusal(db), SlotUnloaded)


def test_a_load_that_an_operator_cancelled_is_not_begun_by_the_next_request(db: Database) -> None:
    make_slots(db, "chat")
    wake_up(db)
    with db.write() as tx:
        cancel(tx, unfinished(db)[0], OPERATOR)
    assert isinstance(refusal(db), SlotUnloaded)


def test_an_operators_unload_of_a_slot_in_error_keeps_it_unloaded(db: Database) -> None:
    make_slots(db, "chat")
    load(db)
    idle_unload(db)
    wake_up(db)
    held = skip_to_load(db)
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.STARTING, Cause.CHECKED, held.act)
    fail(db, held)
    ask_unload(db)
    held = claim_next(db)
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.OFFLINE, Cause.CLEARED, held.act)
    end(db, held)
    assert isinstance(refusal(db), SlotUnloaded)


def test_what_somebody_unloaded_at_the_engine_is_not_woken(db: Database) -> None:
    make_slots(db, "chat")
    load(db)
    unload_elsewhere(db)
    refused = refusal(db)
    assert isinstance(refused, SlotUnloaded)
    assert "the engine's own app" in refused.detail


@pytest.mark.parametrize("by", [OPERATOR, IDLE])
def test_who_first_wanted_it_unloaded_counts_when_a_machine_clears_up_behind(
    db: Database, by: By
) -> None:
    """An unload that failed left the slot in error, and its model in the engine."""
    make_slots(db, "chat")
    load(db)
    with db.write() as tx:
        slot = slot_now(db)
        if by is OPERATOR:
            request_unload(tx, slot, Wish(JobKind.UNLOAD), by)
        else:
            machine_unload(tx, slot, by)
    held = claim_next(db)
    cause = Cause.OPERATOR_UNLOAD if by is OPERATOR else Cause.IDLE_UNLOAD
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.UNLOADING, cause, held.act)
        if by is IDLE:
            want(tx, slot_now(db).id, Desired.UNLOADED, DesiredBy.IDLE)
    fail(db, held)
    with db.write() as tx:
        machine_unload(tx, slot_now(db), IDLE)
    held = claim_next(db)
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.OFFLINE, Cause.UNLOAD_CONFIRMED, held.act)
    end(db, held)
    if by is OPERATOR:
        assert isinstance(refusal(db), SlotUnloaded)
    else:
        assert wake_up(db) is not None


@pytest.mark.parametrize("how", ["operator", "elsewhere"])
def test_a_slot_that_wakes_always_is_woken_whoever_unloaded_it(db: Database, how: str) -> None:
    make_slots(db, "chat")
    set_up(db, wake="always")
    load(db)
    if how == "operator":
        ask_unload(db)
        run_unload(db)
    else:
        unload_elsewhere(db)
    assert wake_up(db) is not None


def test_a_slot_that_never_wakes_is_left_also_when_it_is_wanted_loaded(db: Database) -> None:
    make_slots(db, "chat")
    set_up(db, wake="never", desired="loaded")
    refused = refusal(db)
    assert isinstance(refused, SlotUnloaded)
    assert "wake = never" in refused.detail


def test_a_slot_that_never_wakes_says_so_whatever_else_keeps_it_away(db: Database) -> None:
    make_slot(db, wake="never")
    assert isinstance(refusal(db), SlotUnloaded)
