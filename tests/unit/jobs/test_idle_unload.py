"""A machine's unload gives way to whoever uses the model; any other lets requests end first."""

import contextlib
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, insert, update

from hal0.clock import utc_now
from hal0.db import Database
from hal0.jobs.ledger.intake import machine_unload
from hal0.jobs.outlook import leftover
from hal0.settings import Settings
from hal0.slots.leases import LeaseKey, hold, note_use
from hal0.slots.queries import slot_named
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, SlotState
from hal0.tables import leases, periodic, slots
from tests.fakes.lemond import Lemond
from tests.ledger import IDLE, eventually, history, job, never, outcomes
from tests.rows import ask_load, ask_unload, slot_now
from tests.worker import Worker, equip, loads, unload_in_vain, unloads

CHAT = {"model": "m-chat", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def loaded(db: Database, lemond: Lemond, worker: Worker) -> Worker:
    """A worker whose slot `chat` is loaded, and was looked at once."""
    equip(db, "chat")
    ask_load(db)
    worker.work()
    worker.look_round()
    return worker


def _ask(db: Database) -> tuple[int, ...]:
    with db.write() as tx:
        accepted = machine_unload(tx, slot_now(db), IDLE)
    assert accepted is not None
    return accepted.job_ids


def _look(db: Database, worker: Worker) -> None:
    """Scan now."""
    with db.write() as tx:
        tx.execute(periodic.delete())
    worker.look_round()


def test_what_nobody_uses_is_unloaded_and_stays_so(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    _ask(db)
    loaded.work()
    assert history(db)[3:] == ["ready>unloading idle_unload", "unloading>offline unloaded"]
    assert unloads(lemond) == ["m-chat"]
    assert (slot_now(db).desired, slot_now(db).desired_by) == ("unloaded", "idle")


def test_a_request_past_hal0_between_scan_and_unload_wins(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    """C11, C16"""
    asked = _ask(db)
    lemond.post("/v1/chat/completions", CHAT).raise_for_status()
    loaded.work()
    assert outcomes(db, asked) == ["skipped"]
    assert unloads(lemond) == []
    assert slot_now(db).state is SlotState.READY
    assert slot_now(db).desired == "loaded"


def test_a_request_through_hal0_that_has_ended_wins_too(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    asked = _ask(db)
    with db.soft() as tx:
        tx.execute(update(slots).values(last_used_at=utc_now()))
    loaded.work()
    assert outcomes(db, asked) == ["skipped"]


def test_a_request_that_runs_wins_by_its_lease(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    asked = _ask(db)
    slot = slot_now(db)
    row = {"slot_id": slot.id, "generation": slot.generation, "owner_id": "api", "in_flight": 1}
    with db.soft() as tx:
        tx.execute(insert(leases), {**row, "at": utc_now()})
    loaded.work()
    assert outcomes(db, asked) == ["skipped"]


@pytest.mark.parametrize("health", ["refuse", "no_list", "garbage"])
def test_an_engine_that_does_not_say_whether_it_is_used_counts_as_used(
    db: Database, lemond: Lemond, loaded: Worker, health: str
) -> None:
    asked = _ask(db)
    lemond.script(health=health)
    loaded.work()
    assert outcomes(db, asked) == ["skipped"]
    assert unloads(lemond) == []


def test_an_operators_unload_lets_a_request_past_hal0_end_first(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    """While it is unloaded, Lemonade answers nobody: it must not wait in there."""
    lemond.script(models={"m-chat": {"entry": {"is_busy": True}}})
    (unload,) = ask_unload(db, drain_timeout_s=20).job_ids
    loaded.work()
    assert (job(db, unload).state, job(db, unload).outcome) == ("queued", "deferred")
    assert unloads(lemond) == []
    lemond.script(models={"m-chat": None})
    eventually(lambda: loaded.work() and job(db, unload).state == "succeeded")
    assert unloads(lemond) == ["m-chat"]


def test_a_request_that_does_not_end_fails_the_unload_and_force_does_not_wait(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    lemond.script(models={"m-chat": {"entry": {"is_busy": True}}})
    (unload,) = ask_unload(db, drain_timeout_s=0).job_ids

    def has_failed() -> bool:
        loaded.work()
        return job(db, unload).state == "failed"

    eventually(has_failed)
    assert (job(db, unload).error or {})["code"] == "slot.drain_timeout"
    assert slot_now(db).state is SlotState.READY
    ask_unload(db, force=True)
    loaded.work()
    assert slot_now(db).state is SlotState.OFFLINE


def test_what_an_error_left_in_the_engine_is_cut_off_from_nobody_who_uses_it(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    unload_in_vain(db, lemond, loaded)
    lemond.script(models={"m-chat": {"entry": {"is_busy": True}}})
    (unload,) = ask_unload(db, drain_timeout_s=20).job_ids
    loaded.work()
    assert (job(db, unload).state, job(db, unload).outcome) == ("queued", "deferred")
    assert unloads(lemond) == ["m-chat"], "that which failed"
    lemond.script(models={"m-chat": None})
    eventually(lambda: loaded.work() and job(db, unload).state == "succeeded")
    assert slot_now(db).state is SlotState.OFFLINE


@pytest.mark.parametrize("how", ["no list", "nobody knows", "pinned", "used", "left alone"])
def test_what_an_error_left_in_the_engine_is_unloaded_by_a_machine_only_if_it_is_nobodys(
    db: Database, lemond: Lemond, loaded: Worker, how: str
) -> None:
    """Asked again right before it would be sent."""
    lemond.script(models={"m-chat": {"unload": "fail"}})
    ask_unload(db)
    loaded.work()
    lemond.script(models={"m-chat": None})
    (unload,) = _ask(db)
    if how == "no list":
        lemond.script(health="no_list")
    elif how == "nobody knows":
        lemond.script(models={"m-chat": {"entry": {"is_busy": None}}})
    elif how == "used":
        lemond.post("/v1/chat/completions", CHAT).raise_for_status()
    elif how == "pinned":
        with db.write() as tx:
            tx.execute(update(slots).values(pinned=True))
    loaded.work()
    is_unloaded = how == "left alone"
    assert len(unloads(lemond)) == (2 if is_unloaded else 1)
    assert job(db, unload).outcome == ("done" if is_unloaded else "skipped")
    assert slot_now(db).state is (SlotState.OFFLINE if is_unloaded else SlotState.ERROR)


def test_the_error_of_a_load_stays_to_be_read_when_a_machine_clears_away_behind_it(
    db: Database, settings: Settings, lemond: Lemond
) -> None:
    with contextlib.closing(Worker(db, settings, load_timeout_s=2)) as worker:
        equip(db, "chat")
        lemond.script(models={"m-chat": {"backend": "refuse", "unload": "fail"}})
        ask_load(db)
        worker.work()
        error = slot_now(db).error or {}
        assert (error["code"], unloads(lemond)) == ("engine.backend_not_answering", ["m-chat"])
        lemond.script(models={"m-chat": None})
        _look(db, worker)
        worker.work()
        assert unloads(lemond) == ["m-chat", "m-chat"]
        slot = slot_now(db)
        assert (slot.state, (slot.error or {})["code"]) == (SlotState.ERROR, error["code"])


def test_what_should_not_be_there_is_unloaded_once_by_a_machine(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    """late_unload: an unload that failed leaves its model in the engine."""
    unload_in_vain(db, lemond, loaded)

    _look(db, loaded)
    (again,) = [held.job for held in loaded.work()]
    assert (again.kind, job(db, again.id).state) == (JobKind.UNLOAD, "failed")
    _look(db, loaded)
    assert loaded.work() == [], "no machine tries for ever"
    lemond.script(models={"m-chat": None})
    ask_unload(db)
    loaded.work()
    assert slot_now(db).state is SlotState.OFFLINE


def test_a_refused_idle_unload_is_tried_once_more_and_told_until_an_operator_loads(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    """The model is there all the while: the operator's load takes it over, and sends nothing."""
    lemond.script(models={"m-chat": {"unload": "fail"}})
    _ask(db)
    loaded.work()
    slot = slot_now(db)
    assert (slot.state, slot.engine_model) == (SlotState.ERROR, "m-chat")
    assert leftover(slot) == (
        "m-chat may be loaded still; `hal0 slot load chat` takes it over, "
        "`hal0 slot unload chat` unloads it"
    )
    for _ in range(3):
        _look(db, loaded)
        loaded.work()
    assert unloads(lemond) == ["m-chat", "m-chat"], "once by the scan's job, once as a leftover"
    assert lemond.state()["loaded"] == ["m-chat"]
    ask_load(db)
    loaded.work()
    slot = slot_now(db)
    assert (slot.state, slot.error, leftover(slot)) == (SlotState.READY, None, None)
    assert history(db)[-1] == "warming>ready adopted"
    assert loads(lemond) == ["m-chat"], "the first one"


def test_what_a_machine_unloads_at_its_second_try_is_offline(
    db: Database, lemond: Lemond, loaded: Worker
) -> None:
    lemond.script(models={"m-chat": {"unload": "fail"}})
    _ask(db)
    loaded.work()
    lemond.script(models={"m-chat": None})
    _look(db, loaded)
    loaded.work()
    slot = slot_now(db)
    assert (slot.state, slot.desired, leftover(slot)) == (SlotState.OFFLINE, "unloaded", None)
    assert lemond.state()["loaded"] == []


def _comes(tx: Connection) -> None:
    slot = slot_named(tx, "chat")
    move(tx, slot, SlotState.SERVING, Cause.REQUEST_STARTED, Act("dispatcher"))
    _holds_a_lease(tx)


def _comes_and_goes(tx: Connection) -> None:
    slot = slot_named(tx, "chat")
    note_use(tx, slot.id, slot.generation, utc_now())


def _holds_a_lease(tx: Connection) -> None:
    slot = slot_named(tx, "chat")
    hold(tx, LeaseKey(slot.id, slot.generation, "an-api"), 1)


@pytest.mark.parametrize("request_", [_comes, _comes_and_goes, _holds_a_lease])
def test_a_request_that_comes_between_the_look_and_the_unload_wins(
    db: Database, lemond: Lemond, loaded: Worker, request_: Callable[[Connection], None]
) -> None:
    """C11: the unload reads state, use and leases in the transaction that would mark it."""
    asked = _ask(db)
    looks = len(lemond.calls("/v1/health"))
    with loaded.running(loaded.claim()), db.soft() as tx:  # the lock is held: nobody else writes
        request_(tx)
        eventually(lambda: len(lemond.calls("/v1/health")) > looks)
        never(lambda: unloads(lemond), for_s=0.3)
    assert outcomes(db, asked) == ["skipped"]
    assert unloads(lemond) == []
    assert slot_now(db).is_dispatchable
