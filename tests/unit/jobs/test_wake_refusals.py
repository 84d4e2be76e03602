"""What keeps a request from loading a slot that nobody wants unloaded, and what it is told."""

from datetime import timedelta

import pytest

from hal0.clock import utc_now
from hal0.db import Database
from hal0.errors import (
    EngineRestarted,
    EngineUnreachable,
    ModelTaken,
    SlotHasNoModel,
    SlotLoadFailed,
    SlotLoading,
    SlotParked,
)
from hal0.jobs.give_way import give_way
from hal0.jobs.ledger.breaker import FIRST_S, PARKED_AFTER, breakers_of
from hal0.jobs.ledger.claims import keep, wait_on
from hal0.jobs.ledger.orders import cancel
from hal0.jobs.ledger.rows import Claim
from hal0.jobs.wakes import FULL_S
from hal0.registry.roster import engine_named, note_absence
from hal0.slots.transitions import move
from hal0.states import Cause, Outcome, SlotState
from tests.ledger import add_far_engine, end, fail, free_lane, make_slots, mark_sent
from tests.machine.clock import Clock
from tests.rows import (
    OPERATOR,
    ask_load,
    ask_unload,
    claim_next,
    make_slot,
    run_load,
    send_load,
    skip_to_load,
    slot_now,
)
from tests.unit.jobs.waking import lose, refusal, set_up, wake_up


def test_a_slot_without_a_model_says_so(db: Database) -> None:
    make_slot(db)
    refused = refusal(db)
    assert isinstance(refused, SlotHasNoModel)
    assert "hal0 slot set chat --model" in refused.detail


def test_a_model_that_another_slot_has_by_now_is_not_loaded_twice(db: Database) -> None:
    """An engine unloads by name."""
    make_slots(db, "other")
    make_slot(db, "chat", "m-other")
    assert isinstance(refusal(db), ModelTaken)


@pytest.mark.parametrize("wake", ["auto", "always"])
def test_a_load_that_was_sent_and_failed_is_never_sent_by_a_wake(db: Database, wake: str) -> None:
    make_slots(db, "chat")
    set_up(db, wake=wake)
    wake_up(db)
    sent = send_load(db)
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.OFFLINE, Cause.ENGINE_RESTARTED, sent.act)
    fail(db, sent, EngineRestarted("gone"))
    free_lane(db, sent)
    refused = refusal(db)
    assert isinstance(refused, SlotLoadFailed)
    assert (refused.status, refused.retry_after_s) == (502, None)
    assert (refused.job_id, refused.evidence["code"]) == (sent.job.id, "engine.restarted")
    assert f"hal0 job retry {sent.job.id}" in refused.detail


def test_an_engine_that_is_away_is_not_asked(db: Database) -> None:
    make_slots(db, "chat")
    with db.soft() as tx:
        note_absence(tx, slot_now(db).engine_id, {"code": "engine.unreachable"})
    refused = refusal(db)
    assert isinstance(refused, EngineUnreachable)
    assert (refused.status, refused.retry_after_s) == (502, None)
    assert "engine default" in refused.detail


def _give_way(db: Database, slot: str = "chat") -> None:
    held = skip_to_load(db)
    with db.write() as tx:
        move(tx, slot_now(db, slot), SlotState.STARTING, Cause.CHECKED, held.act)
        assert give_way(tx, held, "the engine is at its model limit")


def _begin_to_unload_other(db: Database) -> Claim:
    ask_unload(db, "other")
    return mark_sent(db, claim_next(db))


def _unload_other(db: Database, held: Claim) -> None:
    with db.write() as tx:
        move(tx, slot_now(db, "other"), SlotState.OFFLINE, Cause.UNLOADED, held.act)
    end(db, held)


def test_a_slot_that_has_given_way_is_not_tried_by_every_request(db: Database) -> None:
    make_slots(db, "chat")
    with Clock() as clock:
        wake_up(db)
        _give_way(db)
        refused = refusal(db)
        assert isinstance(refused, SlotLoading)
        assert "model limit" in refused.detail
        assert refused.retry_after_s == pytest.approx(FULL_S, abs=1)
        clock.tick(int(FULL_S * 1000) + 1000)
        assert wake_up(db) is not None


def test_a_slot_that_has_given_way_is_tried_again_when_another_has_left(db: Database) -> None:
    make_slots(db, "chat", "other")
    ask_load(db, "other")
    run_load(db)
    wake_up(db)
    _give_way(db)
    assert isinstance(refusal(db), SlotLoading)
    unload = _begin_to_unload_other(db)
    assert isinstance(refusal(db), SlotLoading), "it has not left yet"
    _unload_other(db, unload)
    assert wake_up(db) is not None


@pytest.mark.parametrize("engine", ["default", "far"])
def test_what_left_before_or_left_another_engine_makes_no_room(db: Database, engine: str) -> None:
    make_slots(db, "chat", "other")
    if engine == "far":
        add_far_engine(db)
        with db.read() as tx:
            set_up(db, "other", engine_id=engine_named(tx, "far").id)
    ask_load(db, "other")
    run_load(db)
    if engine == "far":
        wake_up(db)
        _give_way(db)
    _unload_other(db, _begin_to_unload_other(db))
    if engine == "default":
        wake_up(db)
        _give_way(db)
    assert isinstance(refusal(db), SlotLoading)


def test_a_job_that_had_nothing_to_do_has_not_given_way(db: Database) -> None:
    make_slots(db, "chat")
    set_up(db, wake="always")
    wake_up(db)
    ask_unload(db)
    end(db, claim_next(db), Outcome.SKIPPED)
    assert wake_up(db) is not None


def test_a_load_that_waited_for_who_used_its_model_has_not_given_way(db: Database) -> None:
    make_slots(db, "chat")
    set_up(db, wake="always")
    accepted = ask_load(db)
    held = skip_to_load(db)
    with db.write() as tx:
        keep(tx, held, {"because": "somebody uses it"})
        wait_on(tx, held, Outcome.DEFERRED, after_s=0.5)
    with db.write() as tx:
        cancel(tx, accepted.job_ids[-1], OPERATOR)
    assert wake_up(db) is not None


def test_two_slots_that_have_given_way_do_not_make_room_for_each_other(db: Database) -> None:
    """Neither held anything; else their requests would have them tried in turn for ever."""
    make_slots(db, "chat", "other")
    wake_up(db, "chat")
    _give_way(db, "chat")
    wake_up(db, "other")
    _give_way(db, "other")
    assert isinstance(refusal(db, "chat"), SlotLoading)
    assert isinstance(refusal(db, "other"), SlotLoading)


def test_a_wall_clock_that_is_set_back_keeps_no_slot_from_being_tried(db: Database) -> None:
    make_slots(db, "chat")
    wake_up(db)
    _give_way(db)
    with db.write() as tx:
        ahead = utc_now().replace(year=utc_now().year + 1)
        tx.exec_driver_sql(
            "UPDATE jobs SET ended_at = ?", (ahead.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),)
        )
    assert wake_up(db) is not None


def test_a_wake_is_counted_like_a_restore_and_parked_like_one(db: Database) -> None:
    make_slots(db, "chat")
    with Clock() as clock:
        for count in range(1, PARKED_AFTER + 1):
            assert wake_up(db) is not None
            run_load(db)
            with db.read() as tx:
                assert breakers_of(tx)[slot_now(db).id].sent == count
            lose(db, Cause.ENGINE_RESTARTED)
            refused = refusal(db)
            assert isinstance(refused, SlotParked)
            pause_s = min(FIRST_S * 2 ** (count - 1), 300)
            assert refused.status == 503
            assert refused.retry_after_s == (pause_s if count < PARKED_AFTER else None)
            if count < PARKED_AFTER:
                opens = utc_now() + timedelta(seconds=pause_s)
                assert refused.evidence["opens_at"] == opens.isoformat()
                assert f"{opens:%H:%M:%SZ}" in refused.detail
            clock.tick(int(pause_s * 1000))
        clock.tick(10_000_000)
        refused = refusal(db)
        assert isinstance(refused, SlotParked)
        assert "load it to begin anew" in refused.detail
