"""What a scan writes of use: demotions, unloads, windows; by the rows and an engine's words."""

from typing import Any

import pytest
from sqlalchemy import Engine, delete, event, insert, update

from hal0.clock import utc_now
from hal0.jobs.ledger.breaker import PARKED_AFTER, count_sent
from hal0.jobs.scan import act_upon
from hal0.registry.roster import engine_named
from hal0.settings import Settings
from hal0.states import Desired, JobKind, SlotState
from hal0.tables import engines, idle_windows, leases, slots
from tests.ledger import history, job, make_slots, unfinished
from tests.rows import ask_load, options, run_load, slot_now
from tests.unit.jobs.scanner import Scanner
from tests.worker import Worker


def test_an_unused_model_becomes_idle_and_then_one_unload_is_asked_for(scanner: Scanner) -> None:
    """C3"""
    scanner.load("chat")
    scanner.scan()
    scanner.scan_for(270)
    assert scanner.state() is SlotState.READY
    scanner.scan_for(30)
    assert history(scanner.db)[-1] == "ready>idle demoted"
    scanner.scan_for(120)
    (unload,) = unfinished(scanner.db)
    assert job(scanner.db, unload).kind is JobKind.UNLOAD
    assert scanner.state() is SlotState.IDLE, "the job unloads it"


def test_a_use_past_hal0_restarts_the_window_wakes_the_slot_and_is_its_last_use(
    scanner: Scanner,
) -> None:
    """C4"""
    scanner.load("chat")
    scanner.scan_for(330)
    assert scanner.state() is SlotState.IDLE
    scanner.says("chat", last_use="200")
    scanner.scan_for(30)
    assert history(scanner.db)[-1] == "idle>ready used_elsewhere"
    assert slot_now(scanner.db).last_used_at == utc_now()
    scanner.scan_for(270)
    assert scanner.state() is SlotState.READY
    scanner.scan_for(30)
    assert scanner.state() is SlotState.IDLE


def test_a_long_stream_past_hal0_keeps_it_and_its_end_is_the_last_use(scanner: Scanner) -> None:
    """C14"""
    scanner.load("chat")
    scanner.scan()
    scanner.says("chat", last_use="200", busy=True)
    scanner.scan_for(600)
    assert scanner.state() is SlotState.READY
    scanner.says("chat", busy=False)
    scanner.scan_for(30)
    assert slot_now(scanner.db).last_used_at == utc_now()
    scanner.scan_for(270)
    assert scanner.state() is SlotState.READY
    scanner.scan_for(30)
    assert scanner.state() is SlotState.IDLE


def test_a_lease_keeps_it_and_so_does_a_request_that_has_ended(scanner: Scanner) -> None:
    """A9, A10: an hour in flight; the dispatcher stamps the end."""
    scanner.load("chat")
    slot = slot_now(scanner.db)
    lease = {"slot_id": slot.id, "generation": slot.generation, "owner_id": "api", "in_flight": 1}
    with scanner.db.soft() as tx:
        tx.execute(insert(leases), {**lease, "at": utc_now()})
    scanner.scan_for(3600)
    assert scanner.state() is SlotState.READY
    with scanner.db.soft() as tx:
        tx.execute(delete(leases))
        tx.execute(update(slots).values(last_used_at=utc_now()))
    scanner.scan_for(300)
    assert scanner.state() is SlotState.READY
    scanner.scan_for(30)
    assert scanner.state() is SlotState.IDLE


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_makes_nothing_idle_early_and_keeps_nothing_for_ever(
    scanner: Scanner, hours: int
) -> None:
    """C10"""
    scanner.load("chat")
    scanner.scan_for(150)
    scanner.clock.step(hours * 3600)
    scanner.scan_for(120)
    assert scanner.state() is SlotState.READY
    scanner.scan_for(60)
    assert scanner.state() is SlotState.IDLE


def test_after_an_hour_without_a_worker_windows_begin_anew(scanner: Scanner) -> None:
    """C15"""
    scanner.load("chat")
    scanner.scan_for(300)
    scanner.clock.tick(3_600_000)
    scanner.scan()
    assert scanner.state() is SlotState.READY
    scanner.scan_for(270)
    assert scanner.state() is SlotState.READY
    scanner.scan_for(30)
    assert scanner.state() is SlotState.IDLE


def test_a_list_that_takes_its_time_to_come_leaves_no_gap_and_is_as_old_as_its_question(
    scanner: Scanner,
) -> None:
    scanner.load("chat")
    for _ in range(5):
        scanner.clock.tick(50_000)
        reading = scanner.read()
        scanner.clock.tick(40_000)
        act_upon(scanner.ctx, reading)
        with scanner.db.read() as tx:
            assert engine_named(tx, "default").list_ms == reading.began_ms
    assert scanner.state() is SlotState.IDLE


def test_scans_that_are_due_more_often_than_workers_tick_leave_no_gap(scanner: Scanner) -> None:
    scanner.ctx.settings = scanner.ctx.settings.model_copy(update={"scan_s": 0.1})
    scanner.load("chat", idle_after_s=10)
    scanner.scan_for(12, every_s=1)
    assert scanner.state() is SlotState.IDLE


def test_windows_of_another_boot_begin_anew(scanner: Scanner) -> None:
    scanner.load("chat")
    scanner.scan_for(330)
    with scanner.db.soft() as tx:
        tx.execute(update(idle_windows).values(since_boot="another boot", since_ms=0))
        tx.execute(update(engines).values(scanned_boot="another boot"))
    scanner.scan_for(30)
    assert unfinished(scanner.db) == []


def test_another_worker_goes_on_where_the_last_one_stopped(
    scanner: Scanner, settings: Settings
) -> None:
    """L-1: what is known of use is in the rows."""
    scanner.load("chat")
    scanner.scan_for(270)
    successor = Worker(scanner.db, settings)
    scanner.ctx = successor.ctx
    scanner.scan_for(60)
    assert scanner.state() is SlotState.IDLE
    successor.close()


def test_an_engine_that_begins_to_count_anew_begins_a_window(scanner: Scanner) -> None:
    """A smaller last use: the engine, or its host, was started again."""
    scanner.load("chat")
    scanner.scan_for(270)
    scanner.says("chat", last_use="3")
    scanner.scan_for(270)
    assert scanner.state() is SlotState.READY


def test_to_fall_asleep_is_no_use_and_to_be_woken_is_one(
    scanner: Scanner, settings: Settings
) -> None:
    """llama.cpp does not tell the counters of a model that sleeps, to any worker."""
    scanner.load("chat", unload_after_s=0)
    scanner.scan_for(330)
    assert scanner.state() is SlotState.IDLE
    awake = scanner.models["chat"]
    scanner.says("chat", last_use="asleep", is_asleep=True)
    scanner.scan_for(30)
    successor = Worker(scanner.db, settings)
    scanner.ctx, first = successor.ctx, scanner.ctx
    scanner.scan_for(30)
    scanner.ctx = first
    scanner.models["chat"] = awake
    scanner.scan_for(30)
    successor.close()
    assert history(scanner.db)[-1] == "ready>idle demoted"
    scanner.says("chat", last_use="101")
    scanner.scan_for(30)
    assert history(scanner.db)[-1] == "idle>ready used_elsewhere"


def test_what_sleeps_at_first_sight_is_unused_from_then_on(scanner: Scanner) -> None:
    scanner.load("chat")
    scanner.says("chat", last_use="asleep", is_asleep=True)
    scanner.scan()
    scanner.scan_for(300)
    assert scanner.state() is SlotState.IDLE


@pytest.mark.parametrize("unknown", [{"last_use": None}, {"busy": None}])
def test_what_the_engine_does_not_say_counts_as_use(
    scanner: Scanner, unknown: dict[str, None]
) -> None:
    """C6"""
    scanner.load("chat")
    scanner.says("chat", **unknown)
    scanner.scan_for(3600)
    assert scanner.state() is SlotState.READY
    assert len(history(scanner.db)) == 3, "and nothing flaps"


def test_a_model_gone_and_back_with_the_same_number_begins_a_window(scanner: Scanner) -> None:
    """C5"""
    scanner.load("chat")
    scanner.scan_for(270)
    listed = scanner.models.pop("chat")
    scanner.scan_for(30)
    assert history(scanner.db)[-1] == "ready>offline unloaded_elsewhere"
    ask_load(scanner.db)
    run_load(scanner.db)
    scanner.models["chat"] = listed
    scanner.scan_for(270)
    assert scanner.state() is SlotState.READY


def test_a_pinned_model_is_never_unloaded_by_a_machine(scanner: Scanner) -> None:
    """C12"""
    scanner.load("chat", pinned=True)
    scanner.scan_for(7200)
    assert scanner.state() is SlotState.IDLE
    assert unfinished(scanner.db) == []


def test_what_nobody_wants_loaded_here_is_not_unloaded_by_a_machine(scanner: Scanner) -> None:
    """It was loaded in the engine's own app, and adopted."""
    scanner.load("chat", desired=Desired.UNLOADED)
    scanner.scan_for(7200)
    assert unfinished(scanner.db) == []


@pytest.mark.parametrize(
    ("values", "states"),
    [
        ({"idle_after_s": 0, "unload_after_s": 0}, (SlotState.READY, 0)),
        ({"idle_after_s": 60, "unload_after_s": 0}, (SlotState.IDLE, 0)),
        ({"idle_after_s": 0, "unload_after_s": 60}, (SlotState.READY, 1)),
        ({"idle_after_s": 86_400, "unload_after_s": 86_430}, (SlotState.READY, 0)),
    ],
    ids=["never", "never unloaded", "unloaded from ready", "a day"],
)
def test_a_slots_own_times_hold(
    scanner: Scanner, values: dict[str, float], states: tuple[SlotState, int]
) -> None:
    """C7, C13"""
    scanner.load("chat", **values)
    scanner.scan_for(7200)
    assert (scanner.state(), len(unfinished(scanner.db))) == states


def test_a_chain_under_way_is_left_alone_however_long_its_slot_was_idle(scanner: Scanner) -> None:
    """C17"""
    scanner.load("chat")
    scanner.scan_for(300)
    ask_load(scanner.db, options=options({"ctx_size": 512}))
    asked = unfinished(scanner.db)
    scanner.scan_for(3600)
    assert unfinished(scanner.db) == asked
    assert scanner.state() is SlotState.READY


def test_a_look_that_finds_nothing_new_writes_nothing_of_slots(scanner: Scanner) -> None:
    """One row of the engine is written, however many slots it has."""
    scanner.load("one", "two", "busy")
    scanner.says("busy", busy=True)
    (parked,) = make_slots(scanner.db, "parked")
    wish = {"model_id": parked.wanted_model_id}
    with scanner.db.write() as tx:
        tx.execute(update(slots).where(slots.c.id == parked.id).values(restore=wish))
        for _ in range(PARKED_AFTER):
            count_sent(tx, parked.id)
    scanner.scan_for(60)
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if not statement.lstrip().upper().startswith(("SELECT", "WITH", "BEGIN", "PRAGMA")):
            statements.append(statement.split()[1])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        scanner.scan_for(30)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert statements == ["engines"]


def test_how_long_a_scan_took_is_written_of_its_engine(scanner: Scanner) -> None:
    scanner.load("chat")
    seen = scanner.read()
    scanner.clock.tick(1500)
    act_upon(scanner.ctx, seen)
    with scanner.db.read() as tx:
        assert engine_named(tx, "default").scan_took_ms == 1500


def test_of_two_workers_that_saw_the_same_only_one_writes(scanner: Scanner) -> None:
    scanner.load("chat")
    scanner.scan()
    scanner.scan_for(270)
    scanner.clock.tick(30_000)
    seen = scanner.read()
    assert act_upon(scanner.ctx, seen) == 1
    assert act_upon(scanner.ctx, seen) == 0
    assert history(scanner.db)[3:] == ["ready>idle demoted"]
