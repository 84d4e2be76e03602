"""How often a machine loads a model that its slot keeps losing."""

from sqlalchemy import update

from hal0.clock import utc_now
from hal0.db import Database
from hal0.jobs.ledger.breaker import (
    PARKED_AFTER,
    Breaker,
    breakers_of,
    count_sent,
    forget,
    note_ready,
)
from hal0.jobs.restore import load_again, restore_due, restore_of
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, SlotState
from hal0.tables import breakers, slots
from tests.fakes.lemond import Lemond
from tests.ledger import fail, history, make_slots, unfinished
from tests.machine.clock import Clock
from tests.rows import (
    arrive,
    ask_load,
    ask_unload,
    claim_next,
    run_load,
    send_load,
    slot_now,
)
from tests.worker import Worker, equip, loads


def _breaker(db: Database, slot: str = "chat") -> Breaker | None:
    slot_id = slot_now(db, slot).id
    with db.read() as tx:
        return breakers_of(tx, slot_id).get(slot_id)


def _lose(db: Database, slot: str = "chat") -> None:
    """Let the engine lose what a loaded slot has."""
    with db.write() as tx:
        was = slot_now(db, slot)
        move(tx, was, SlotState.OFFLINE, Cause.ENGINE_RESTARTED, Act("reconcile"))
        tx.execute(update(slots).where(slots.c.id == was.id).values(model_id=None))
        load_again(tx, was, Cause.ENGINE_RESTARTED, None)


def _is_healed(db: Database) -> bool:
    breaker = _breaker(db)
    assert breaker is not None
    return breaker.is_healed


def _sent(db: Database) -> int:
    breaker = _breaker(db)
    return 0 if breaker is None else breaker.sent


def _heal(db: Database) -> None:
    """Do what a scan does that finds the model in the engine."""
    if _is_healed(db):
        with db.soft() as tx:
            forget(tx, slot_now(db).id)


def _restore(db: Database, slot: str = "chat") -> int:
    with db.write() as tx:
        return restore_due(tx, slot_now(db, slot).engine_id)


def _lose_and_restore(db: Database, clock: Clock) -> None:
    """Lose the model and let a machine load it again, at once or as soon as it may."""
    _lose(db)
    for _ in range(400):
        if unfinished(db) or _restore(db):
            break
        clock.tick(1000)
    run_load(db)


def _ready(db: Database, *names: str) -> None:
    make_slots(db, *names)
    for name in names:
        ask_load(db, name)
        run_load(db)


def test_what_is_lost_for_the_first_time_is_loaded_again_at_once(
    db: Database, clock: Clock
) -> None:
    _ready(db, "chat")
    assert _breaker(db) is None, "an operator's load counts nothing"
    _lose(db)
    assert len(unfinished(db)) == 4
    assert _breaker(db) is None, "counted when it is sent, not when it is asked for"
    run_load(db)
    breaker = _breaker(db)
    assert breaker is not None
    assert breaker.sent == 1


def test_the_pause_doubles_with_each_load_that_is_sent(db: Database, clock: Clock) -> None:
    """10 s, 20 s, 40 s, 80 s; never more than 5 min."""
    _ready(db, "chat")
    pauses = []
    for _ in range(4):
        _lose_and_restore(db, clock)
        breaker = _breaker(db)
        assert breaker is not None
        pauses.append((breaker.opens_ms - clock.ms) / 1000)
        assert round((breaker.opens_at - utc_now()).total_seconds()) == round(pauses[-1])
    assert pauses == [10, 20, 40, 80]


def test_no_pause_is_longer_than_five_minutes(db: Database, clock: Clock) -> None:
    make_slots(db, "chat")
    with db.write() as tx:
        for _ in range(12):
            count_sent(tx, slot_now(db).id)
    breaker = _breaker(db)
    assert breaker is not None
    assert breaker.opens_ms - clock.ms == 300_000


def test_a_refusal_writes_no_transition_and_the_wish_stays(db: Database, clock: Clock) -> None:
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    _lose(db)
    before = history(db)
    assert unfinished(db) == []
    assert _restore(db) == 0
    assert history(db) == before
    noted = restore_of(slot_now(db))
    assert noted is not None
    assert noted["cause"] == "engine_restarted"
    clock.tick(9_999)
    assert _restore(db) == 0
    clock.tick(1)
    assert _restore(db) == 1
    assert restore_of(slot_now(db)) is None


def test_after_five_loads_it_is_parked_until_an_operator_loads_it(
    db: Database, clock: Clock
) -> None:
    _ready(db, "chat")
    for _ in range(5):
        _lose_and_restore(db, clock)
    _lose(db)
    clock.tick(86_400_000)
    assert _restore(db) == 0
    breaker = _breaker(db)
    assert breaker is not None
    assert breaker.is_parked
    ask_load(db)
    assert _breaker(db) is None
    assert restore_of(slot_now(db)) is None
    run_load(db)
    assert slot_now(db).state is SlotState.READY


def test_it_is_parked_on_the_next_boot_too_and_an_open_one_lets_through_there(
    db: Database, clock: Clock
) -> None:
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    with db.write() as tx:
        tx.execute(update(breakers).values(sent_boot="another boot"))
    breaker = _breaker(db)
    assert breaker is not None
    assert not breaker.refuses
    with db.write() as tx:
        tx.execute(update(breakers).values(sent=5))
    breaker = _breaker(db)
    assert breaker is not None
    assert breaker.refuses


def test_five_minutes_with_the_model_heal_it(db: Database, clock: Clock) -> None:
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    clock.tick(299_999)
    assert not _is_healed(db)
    clock.tick(1)
    assert _is_healed(db)
    with db.soft() as tx:
        forget(tx, slot_now(db).id)
    assert _breaker(db) is None


def test_the_time_that_a_load_takes_heals_nothing(db: Database, clock: Clock) -> None:
    """A model that takes five minutes to load, and is lost at once, is parked like any other."""
    _ready(db, "chat")
    for sent in range(1, PARKED_AFTER + 1):
        _lose(db)
        while not (unfinished(db) or _restore(db)):
            clock.tick(1000)
        held = send_load(db)
        clock.tick(301_000)
        arrive(db, held)
        _heal(db)
        clock.tick(1000)
        assert _sent(db) == sent
    _lose(db)
    clock.tick(86_400_000)
    assert _restore(db) == 0, "parked"


def test_time_without_the_model_heals_nothing(db: Database, clock: Clock) -> None:
    """It is sent, ready for a moment, lost, and adopted long after: five minutes from then."""
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    clock.tick(299_000)
    _lose(db)
    with db.write() as tx:
        note_ready(tx, slot_now(db).id)  # as whoever takes over what the engine has
    clock.tick(299_999)
    assert not _is_healed(db)
    clock.tick(1)
    assert _is_healed(db)


def test_a_load_that_is_under_way_is_not_healed_by_the_one_before(
    db: Database, clock: Clock
) -> None:
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    clock.tick(299_999)
    _lose(db)
    assert unfinished(db)
    send_load(db)
    clock.tick(300_000)
    assert not _is_healed(db)


def test_only_time_on_this_boot_heals(db: Database, clock: Clock) -> None:
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    with db.write() as tx:
        tx.execute(update(breakers).values(ready_boot="another boot", ready_ms=0))
    clock.tick(86_400_000)
    assert not _is_healed(db)
    with db.write() as tx:
        note_ready(tx, slot_now(db).id)
    clock.tick(300_000)
    assert _is_healed(db)


def test_a_slot_without_automatic_loads_gets_no_breaker_by_being_ready(db: Database) -> None:
    _ready(db, "chat")
    with db.write() as tx:
        note_ready(tx, slot_now(db).id)
    assert _breaker(db) is None


def test_what_nobody_wants_loaded_is_not_noted(db: Database, clock: Clock) -> None:
    _ready(db, "chat")
    with db.write() as tx:
        tx.execute(update(slots).values(desired="unloaded"))
    _lose(db)
    assert restore_of(slot_now(db)) is None
    assert unfinished(db) == []


def test_an_operators_unload_takes_the_wish_away(db: Database, clock: Clock) -> None:
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    _lose(db)
    assert restore_of(slot_now(db)) is not None
    ask_unload(db)
    clock.tick(60_000)
    assert _restore(db) == 0
    assert restore_of(slot_now(db)) is None


def test_a_machines_load_that_was_sent_and_failed_is_never_repeated(
    db: Database, clock: Clock
) -> None:
    """E5"""
    _ready(db, "chat")
    _lose(db)
    fail(db, send_load(db))
    with db.write() as tx:
        was = slot_now(db)
        offline = move(tx, was, SlotState.OFFLINE, Cause.CLEARED, Act("local"))
        load_again(tx, offline, Cause.HOST_REBOOTED, None)
    clock.tick(1_000_000)
    assert unfinished(db) == []
    assert _restore(db) == 0
    assert restore_of(slot_now(db)) is None, "a wish that can never come true goes"


def test_the_most_important_slot_is_loaded_first(db: Database, clock: Clock) -> None:
    """D14: in order of priority, one by one."""
    _ready(db, "low", "high", "middle")
    with db.write() as tx:
        for name, priority in (("low", -5), ("high", 9), ("middle", 0)):
            slot = slot_now(db, name)
            move(tx, slot, SlotState.OFFLINE, Cause.HOST_REBOOTED, Act("worker"))
            note = {"cause": "host_rebooted", "model_id": slot.model_id, "job_id": None}
            values = {"priority": priority, "restore": {**note, "options": slot.options}}
            tx.execute(update(slots).where(slots.c.id == slot.id).values(**values))
    assert _restore(db, "high") == 3
    order = []
    for _ in range(3):
        held = claim_next(db)
        assert held.job.kind is JobKind.PULL
        order.append(held.job.slot_id)
    assert order == [slot_now(db, name).id for name in ("high", "middle", "low")]


def test_a_model_that_another_slot_has_taken_meanwhile_is_not_loaded_beside_it(
    db: Database, clock: Clock
) -> None:
    """D2: an engine unloads by model name."""
    _ready(db, "chat")
    _lose_and_restore(db, clock)
    make_slots(db, "other")
    taken = slot_now(db).wanted_model_id
    _lose(db)
    with db.write() as tx:
        mine = slot_now(db, "other").wanted_model_id
        for name, model_id in (("chat", mine), ("other", taken)):
            change = update(slots).where(slots.c.id == slot_now(db, name).id)
            tx.execute(change.values(wanted_model_id=model_id))
    clock.tick(60_000)
    assert _restore(db) == 0
    assert unfinished(db) == []


def test_a_worker_notes_when_the_slot_has_its_model(
    db: Database, lemond: Lemond, worker: Worker
) -> None:
    equip(db, "chat")
    ask_load(db)
    worker.work()
    lemond.drop("m-chat")
    _lose(db)
    worker.work()
    assert slot_now(db).state is SlotState.IDLE
    assert loads(lemond) == ["m-chat", "m-chat"]
    breaker = _breaker(db)
    assert breaker is not None
    assert breaker.ready_ms is not None
    assert breaker.ready_ms >= breaker.sent_ms
