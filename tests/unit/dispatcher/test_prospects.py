"""What a request is told whose slot holds nothing, and when it is to come again."""

import asyncio

import pytest
from sqlalchemy import update

from hal0.clock import monotonic_ms
from hal0.dispatcher.prospects import LONGEST_S
from hal0.errors import (
    EngineUnreachable,
    FileNotFound,
    SlotHasNoModel,
    SlotLoadFailed,
    SlotLoading,
    SlotParked,
    SlotUnloaded,
)
from hal0.jobs.ledger.claims import wait_on
from hal0.jobs.ledger.orders import retry
from hal0.jobs.losses import forget_held
from hal0.registry.roster import note_absence
from hal0.slots.transitions import Act, move
from hal0.states import Cause, JobKind, Outcome, SlotState
from hal0.tables import jobs, slots
from tests.ledger import claim_kind, end, fail, make_slots, mark_sent, unfinished
from tests.rows import (
    OPERATOR,
    arrive,
    ask_load,
    ask_unload,
    claim_next,
    make_slot,
    run_load,
    send_load,
    skip_to_load,
    slot_now,
)
from tests.unit.dispatcher.waiting_room import (
    LIMIT_S,
    MakeRoom,
    Room,
    advance,
    begin_to_validate,
    told,
)

pytestmark = pytest.mark.anyio


async def test_a_slot_in_error_is_refused_at_once(room: Room) -> None:
    """A15"""
    make_slots(room.db, "chat")
    ask_load(room.db)
    held = begin_to_validate(room.db)
    fail(room.db, held, FileNotFound("there is no file"))
    refused = await told(room.ask())
    assert isinstance(refused, SlotLoadFailed)
    assert (refused.status, refused.retry_after_s, refused.job_id) == (502, None, held.job.id)
    assert str(held.job.id) in refused.detail
    assert "preload.file_not_found" in refused.detail


async def test_a_slot_in_error_whose_load_is_asked_for_again_is_waited_for(room: Room) -> None:
    make_slots(room.db, "chat")
    ask_load(room.db)
    held = begin_to_validate(room.db)
    fail(room.db, held, FileNotFound("there is no file"))
    with room.db.write() as tx:
        retry(tx, held.job.id, OPERATOR)
    async with room.asking(1) as (task,):
        assert not task.done()
        load = mark_sent(room.db, claim_kind(room.db, JobKind.LOAD))
        arrive(room.db, load)
        await asyncio.wait_for(task, LIMIT_S)


async def test_a_slot_that_never_wakes_is_refused_at_once(room: Room) -> None:
    make_slots(room.db, "chat")
    with room.db.write() as tx:
        tx.execute(update(slots).values(wake="never"))
    refused = await told(room.ask())
    assert isinstance(refused, SlotUnloaded)
    assert (room.chains(), room.rings) == (0, 0)


async def test_a_slot_without_a_model_is_refused_at_once(room: Room) -> None:
    make_slot(room.db)
    assert isinstance(await told(room.ask()), SlotHasNoModel)


async def test_a_slot_that_keeps_losing_its_model_says_when_it_may_be_loaded(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        run_load(room.db)
        await asyncio.wait_for(task, LIMIT_S)
    with room.db.write() as tx:
        was = slot_now(room.db)
        move(tx, was, SlotState.OFFLINE, Cause.ENGINE_RESTARTED, Act("reconcile"))
        forget_held(tx, was.id)
    refused = await told(room.ask())
    assert isinstance(refused, SlotParked)
    assert 0 < (refused.retry_after_s or 0) <= 10


async def test_an_engine_that_is_away_is_told(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        held = skip_to_load(room.db)
        with room.db.write() as tx:
            note_absence(tx, held.job.engine_id, {"code": "engine.unreachable"})
            wait_on(tx, held, Outcome.DEFERRED, 60)
        assert isinstance(await told(task), EngineUnreachable)
    assert isinstance(await told(room.ask()), EngineUnreachable)
    assert len(unfinished(room.db)) == 1, "the load goes on waiting for its engine"


async def test_a_wait_that_is_over_says_when_the_load_is(make_room: MakeRoom) -> None:
    room = make_room(wake_timeout_s=0.3)
    make_slots(room.db, "chat")
    ask_load(room.db)
    sent = send_load(room.db)  # with a limit of 60 s
    began_ms = monotonic_ms()
    refused = await told(room.ask())
    assert isinstance(refused, SlotLoading)
    assert monotonic_ms() - began_ms >= 300
    assert refused.job_id == sent.job.id
    assert 30 < (refused.retry_after_s or 0) <= 60
    assert "warming" in refused.detail


@pytest.mark.parametrize("state", ["pulling", "starting", "warming", "unloading"])
async def test_a_slot_that_is_at_work_says_loading(at_once: Room, state: str) -> None:
    """A14"""
    db = at_once.db
    make_slots(db, "chat")
    ask_load(db)
    if state == "warming":
        send_load(db)
    elif state == "unloading":
        run_load(db)
        ask_unload(db)
        advance(db, SlotState.UNLOADING, Cause.OPERATOR_UNLOAD, claim_next(db))
    else:
        causes = {"pulling": Cause.FETCH_STARTED, "starting": Cause.CHECKED}
        advance(db, SlotState(state), causes[state], claim_next(db))
    assert slot_now(db).state == state
    refused = await told(at_once.ask())
    assert isinstance(refused, SlotLoading)
    assert refused.status == 503
    assert 1 <= (refused.retry_after_s or 0) <= LONGEST_S
    assert at_once.chains() == (2 if state == "unloading" else 1)


async def test_a_load_behind_the_load_of_another_slot_says_so(at_once: Room) -> None:
    make_slots(at_once.db, "other", "chat")
    ask_load(at_once.db, "other")
    other = send_load(at_once.db)
    assert isinstance(await told(at_once.ask()), SlotLoading)
    for _ in range(3):
        end(at_once.db, claim_next(at_once.db), Outcome.SKIPPED)
    refused = await told(at_once.ask())
    assert f"load of slot other (job {other.job.id})" in refused.detail
    assert 120 < (refused.retry_after_s or 0) <= 180, "what is left of that one, and its own limit"


async def test_nobody_is_told_to_stay_away_for_hours(at_once: Room) -> None:
    make_slots(at_once.db, "chat")
    ask_load(at_once.db)
    send_load(at_once.db)
    with at_once.db.write() as tx:
        tx.execute(update(jobs).values(deadline_ms=monotonic_ms() + 10_000_000))
    assert (await told(at_once.ask())).retry_after_s == LONGEST_S
    with at_once.db.write() as tx:
        tx.execute(update(jobs).values(deadline_ms=monotonic_ms() - 10_000))
    assert (await told(at_once.ask())).retry_after_s == 1
