"""What a request does whose slot holds nothing: it waits for one load, and for its end."""

import asyncio
import threading

import psutil
import pytest
from sqlalchemy import select, update

from hal0.db import Database
from hal0.errors import (
    EngineRefused,
    EngineRestarted,
    FileNotFound,
    SlotFull,
    SlotLoadFailed,
    SlotLoading,
    SlotNotFound,
    SlotUnloaded,
)
from hal0.jobs.give_way import give_way
from hal0.jobs.ledger import claims
from hal0.jobs.ledger.intake import Wish, request_check
from hal0.jobs.ledger.orders import cancel
from hal0.jobs.setup import delete_slot
from hal0.slots.transitions import move
from hal0.states import Cause, JobKind, Outcome, SlotState
from hal0.tables import chains, slots
from tests.ledger import end, fail, free_lane, make_slots, unfinished
from tests.rows import (
    OPERATOR,
    ask_load,
    ask_unload,
    claim_next,
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


def _connections(db: Database) -> int:
    """Count how often this process has the file of the database open."""
    return sum(file.path == str(db.path) for file in psutil.Process().open_files())


# -- one load, however many ask ---------------------------------------------------------------


async def test_however_many_ask_one_load_is_enqueued_and_all_are_served(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(50) as tasks:
        await room.until(lambda: room.chains() == 1)
        assert not any(task.done() for task in tasks)
        run_load(room.db)
        await asyncio.wait_for(asyncio.gather(*tasks), LIMIT_S)
    assert (room.chains(), room.rings) == (1, 1)


async def test_several_processes_enqueue_one_load(make_room: MakeRoom) -> None:
    one, other = make_room(), make_room()
    make_slots(one.db, "chat")
    async with one.asking(5) as some, other.asking(5) as others:
        await one.until(lambda: one.chains() == 1)
        run_load(one.db)
        await asyncio.wait_for(asyncio.gather(*some, *others), LIMIT_S)
    assert (one.chains(), one.rings + other.rings) == (1, 1)


async def test_waiting_takes_no_thread_and_no_connection_for_each(make_room: MakeRoom) -> None:
    room = make_room(max_waiting=500)
    make_slots(room.db, "chat")
    async with room.asking(1):
        await room.until(lambda: room.chains() == 1)
    before = threading.active_count(), _connections(room.db)
    async with room.asking(400):
        for _ in range(20):
            assert threading.active_count() <= before[0] + 4, "the look, and the watch"
            assert _connections(room.db) <= before[1] + 4
            await asyncio.sleep(0.02)


async def test_the_wake_is_done_for_who_came_first(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(2):
        await room.until(lambda: room.chains() == 1)
        with room.db.read() as tx:
            chain = tx.execute(select(chains)).one()
    assert (chain.origin, chain.actor, chain.request_id) == ("wake", "somebody", "request-0")


async def test_a_request_that_goes_away_leaves_the_load_to_go_on(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1):
        await room.until(lambda: room.chains() == 1)
    assert room.waker.waiting(slot_now(room.db).id) == 0
    assert len(unfinished(room.db)) == 4
    run_load(room.db)
    await asyncio.wait_for(room.ask(), LIMIT_S)
    assert room.chains() == 1


async def test_an_operators_load_is_joined(room: Room) -> None:
    make_slots(room.db, "chat")
    ask_load(room.db)
    async with room.asking(3) as tasks:
        run_load(room.db)
        await asyncio.wait_for(asyncio.gather(*tasks), LIMIT_S)
    assert (room.chains(), room.rings) == (1, 0)


async def test_a_check_that_is_under_way_is_waited_for_before_the_load_is_asked_for(
    room: Room,
) -> None:
    make_slots(room.db, "chat")
    with room.db.write() as tx:
        request_check(tx, slot_now(room.db), Wish(JobKind.VALIDATE), OPERATOR)
    async with room.asking(1) as (task,):
        held = claim_next(room.db)
        advance(room.db, SlotState.STARTING, Cause.CHECKED, held)
        assert room.chains() == 1
        with room.db.write() as tx:
            move(tx, slot_now(room.db), SlotState.OFFLINE, Cause.VALIDATED, held.act)
            claims.finish(tx, held)
        await room.until(lambda: room.chains() == 2)
        run_load(room.db)
        await asyncio.wait_for(task, LIMIT_S)


# -- how the wait ends ------------------------------------------------------------------------


async def test_a_request_that_waits_is_told_at_once_that_the_load_failed(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(3) as tasks:
        await room.until(lambda: room.chains() == 1)
        held = begin_to_validate(room.db)
        fail(room.db, held, FileNotFound("there is no file"))
        refused = [await told(task) for task in tasks]
    for one in refused:
        assert isinstance(one, SlotLoadFailed)
        assert (one.job_id, one.evidence["code"]) == (held.job.id, "preload.file_not_found")
        assert one.retry_after_s is None
    assert room.chains() == 1, "nothing is tried again"


async def test_a_load_that_fails_before_the_slot_has_moved_is_not_begun_again(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        fail(room.db, claim_next(room.db), EngineRefused("no"))
        assert slot_now(room.db).state is SlotState.OFFLINE
        assert isinstance(await told(task), SlotLoadFailed)
    assert room.chains() == 1


async def test_a_load_whose_engine_went_ends_the_wait(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        held = send_load(room.db)
        advance(room.db, SlotState.OFFLINE, Cause.ENGINE_RESTARTED, held)
        fail(room.db, held, EngineRestarted("gone"))
        free_lane(room.db, held)
        refused = await told(task)
    assert isinstance(refused, SlotLoadFailed)
    assert refused.job_id == held.job.id


@pytest.mark.parametrize("wake", ["auto", "always"])
async def test_a_load_that_is_cancelled_ends_the_wait(room: Room, wake: str) -> None:
    make_slots(room.db, "chat")
    with room.db.write() as tx:
        tx.execute(update(slots).values(wake=wake))
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        with room.db.write() as tx:
            cancel(tx, unfinished(room.db)[0], OPERATOR)
        refused = await told(task)
    assert isinstance(refused, SlotUnloaded)
    assert refused.retry_after_s is None
    assert room.chains() == 1


async def test_an_operators_unload_ends_the_wait(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        begin_to_validate(room.db)
        ask_unload(room.db)
        end(room.db, claim_next(room.db), Outcome.SKIPPED)
        assert isinstance(await told(task), SlotUnloaded)


async def test_an_operators_other_load_is_waited_for_instead(room: Room) -> None:
    make_slots(room.db, "chat", "other")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        begin_to_validate(room.db)
        ask_load(room.db, options={"ctx_size": 512})
        run_load(room.db)
        await asyncio.wait_for(task, LIMIT_S)


async def test_a_slot_that_is_deleted_is_not_waited_for(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        with room.db.write() as tx:
            delete_slot(tx, slot_now(room.db), OPERATOR, force=True)
        assert isinstance(await told(task), SlotNotFound)


async def test_a_full_engine_is_said_and_not_asked_again_by_each_request(room: Room) -> None:
    """A machine never evicts."""
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        held = skip_to_load(room.db)
        advance(room.db, SlotState.STARTING, Cause.CHECKED, held)
        with room.db.write() as tx:
            assert give_way(tx, held, "the engine is at its model limit")
        refused = await told(task)
    assert isinstance(refused, SlotLoading)
    assert "model limit" in refused.detail
    assert 1 <= (refused.retry_after_s or 0) <= 30
    assert isinstance(await told(room.ask()), SlotLoading)
    assert room.chains() == 1


# -- how many wait, and how long -------------------------------------------------------------


async def test_who_may_not_wait_wakes_the_slot_all_the_same(at_once: Room) -> None:
    make_slots(at_once.db, "chat")
    refused = await told(at_once.ask())
    assert isinstance(refused, SlotLoading)
    assert (at_once.chains(), at_once.rings) == (1, 1)
    run_load(at_once.db)
    await asyncio.wait_for(at_once.ask(), LIMIT_S)


async def test_one_more_than_may_wait_is_refused(make_room: MakeRoom) -> None:
    room = make_room(max_waiting=3)
    make_slots(room.db, "chat", "other")
    async with room.asking(3) as tasks:
        refused = await told(room.ask())
        assert isinstance(refused, SlotFull)
        assert (refused.status, refused.evidence["max_waiting"]) == (429, 3)
        async with room.asking(1, "other"):
            pass
        tasks[0].cancel()
        await room.until(lambda: room.waker.waiting(slot_now(room.db).id) == 2)
        async with room.asking(3) as more:
            await room.until(lambda: sum(task.done() for task in more) == 2)
    assert room.waker.waiting(slot_now(room.db).id) == 0


async def test_a_slots_own_limit_of_those_who_wait_holds(room: Room) -> None:
    make_slots(room.db, "chat")
    with room.db.write() as tx:
        tx.execute(update(slots).values(max_waiting=0))
    refused = await told(room.ask())
    assert isinstance(refused, SlotLoading), "nobody waits, but the slot is woken"
    assert room.chains() == 1


async def test_a_database_that_cannot_be_read_ends_the_wait(room: Room) -> None:
    make_slots(room.db, "chat")
    async with room.asking(1) as (task,):
        await room.until(lambda: room.chains() == 1)
        with room.db.soft() as tx:
            tx.exec_driver_sql("ALTER TABLE breakers RENAME TO gone")
            tx.exec_driver_sql("ALTER TABLE slots RENAME TO gone_too")
        assert (await told(task)).code == "db.error"
