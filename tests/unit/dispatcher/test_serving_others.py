"""What others do to a slot that serves: unload it, drain it, call us dead, come before us."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import delete

from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.dispatcher.edges import NotDispatchable
from hal0.dispatcher.serving import ALIVE_MS
from hal0.errors import DrainTimeout, SlotDraining
from hal0.jobs.losses import forget_held, lose
from hal0.settings import Settings
from hal0.slots.leases import note_use
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import leases
from tests.apis import Api, history_since_ready, the_leases, until
from tests.ledger import make_slots
from tests.rows import ask_load, ask_unload, claim_next, fail_next, run_load, slot_now

pytestmark = pytest.mark.anyio
WORKER = Act("worker")
LONG_S = 60.0


def unload_by_force(db: Database) -> None:
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.UNLOADING, Cause.FORCED, WORKER)


def end_unload(db: Database) -> None:
    with db.write() as tx:
        slot = move(tx, slot_now(db), SlotState.OFFLINE, Cause.UNLOADED, WORKER)
        forget_held(tx, slot.id)


def evict(db: Database) -> None:
    with db.write() as tx:
        lose(tx, slot_now(db), Cause.EVICTED_BY_ENGINE, WORKER, restores=False)


def restart_engine(db: Database) -> None:
    with db.write() as tx:
        lose(tx, slot_now(db), Cause.ENGINE_RESTARTED, Act("reconcile"), restores=False)


def reboot(db: Database) -> None:
    with db.write() as tx:
        lose(tx, slot_now(db), Cause.HOST_REBOOTED, Act("api"), restores=False)


def lose_engine(db: Database) -> None:
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.ERROR, Cause.ENGINE_LOST, Act("reconcile"))


def load_again(db: Database) -> None:
    ask_load(db)
    run_load(db)


async def test_a_slot_that_is_not_dispatchable_is_not_entered(
    db: Database, settings: Settings
) -> None:
    make_slots(db, "chat")
    async with Api(db, settings) as api:
        asked = await asyncio.gather(*(api.acquire() for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in asked] == [NotDispatchable] * 3
        assert isinstance(asked[0], NotDispatchable)
        assert asked[0].slot == slot_now(db)
        assert asked[0] is not asked[1]
        assert api.in_flight() == 0
    assert the_leases(db) == {}
    assert slot_now(db).state is SlotState.OFFLINE


async def test_who_finds_the_slot_serving_through_another_process_moves_nothing(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, "api-1") as one, Api(chat, settings, "api-2") as two:
        mine, others = await one.acquire(), await two.acquire()
        assert history_since_ready(chat) == ["ready>serving request_started"]
        one.release(mine)
        two.release(others)


async def test_a_slot_that_was_demoted_meanwhile_is_entered_as_it_is(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        with chat.write() as tx:
            entering = asyncio.create_task(api.acquire())
            await until(lambda: api.db.asked == 1)
            move(tx, slot_now(chat), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
        api.release(await entering)
        await until(lambda: slot_now(chat).state is SlotState.READY)


async def test_a_forced_unload_cuts_what_runs_and_lets_nobody_in(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        told: list[str] = []
        first, second = await api.acquire_many(2)
        first.on_cut(lambda: told.append("first"))
        unload_by_force(chat)
        assert the_leases(chat) == {}, "they go in the same commit"
        await until(lambda: told)
        assert first.is_cut
        assert second.is_cut
        assert not first.is_good
        assert api.in_flight() == 0
        with pytest.raises(NotDispatchable):
            await api.acquire()
        api.release(first, second)
        end_unload(chat)
        before = history_since_ready(chat)
        load_again(chat)
        third = await api.acquire()
        assert (third.held.generation, third.is_good, third.is_cut) == (2, True, False)
        api.release(third)
        assert before[1:] == ["serving>unloading forced", "unloading>offline unloaded"]


async def test_a_forced_unload_that_is_seen_late_cuts_all_the_same(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings) as api:
        lease = await api.acquire()
        unload_by_force(chat)
        end_unload(chat)
        await until(lambda: lease.is_cut)
        api.release(lease)


@pytest.mark.parametrize("take_away", [evict, restart_engine, reboot, lose_engine])
async def test_what_the_engine_lost_is_noted_and_cuts_nobody(
    chat: Database, settings: Settings, take_away: Callable[[Database], None]
) -> None:
    """Its stream ends by itself; or goes on, for whoever called the engine gone may err."""
    async with Api(chat, settings, serving_linger_s=0) as api:
        lease = await api.acquire()
        take_away(chat)
        assert the_leases(chat) == {}
        await until(lambda: not lease.is_good)
        assert not lease.is_cut
        with pytest.raises(NotDispatchable):
            await api.acquire()
        before = slot_now(chat)
        api.release(lease)
        await asyncio.sleep(0.05)
        assert slot_now(chat) == before, "a release that finds no lease does nothing"


async def test_requests_of_an_older_generation_do_not_hold_the_new_one(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        old = await api.acquire()
        restart_engine(chat)
        load_again(chat)
        await until(lambda: not old.is_good)
        new = await api.acquire()
        assert (old.held.generation, new.held.generation) == (1, 2)
        assert (api.in_flight(), the_leases(chat)) == (1, {"api-1": 1})
        api.release(old)
        assert api.in_flight() == 1
        api.release(new)
        await until(lambda: slot_now(chat).state is SlotState.READY)


def test_a_use_of_an_older_generation_is_none_of_the_new_one(chat: Database) -> None:
    slot, now = slot_now(chat), utc_now()
    for generation, used_at in ((slot.generation - 1, slot.last_used_at), (slot.generation, now)):
        with chat.write() as tx:
            note_use(tx, slot.id, generation, now)
        assert slot_now(chat).last_used_at == used_at


async def test_a_new_generation_that_the_rows_tell_of_before_the_watch_is_entered_as_new(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, look_s=LONG_S) as api:
        old = await api.acquire()
        restart_engine(chat)
        load_again(chat)
        api.last_beat_ms = monotonic_ms() - ALIVE_MS
        new = await api.acquire()
        assert (old.is_good, new.held.generation) == (False, 2)
        assert (api.in_flight(), the_leases(chat)) == (1, {"api-1": 1})
        api.release(old)
        assert api.in_flight() == 1
        api.release(new)


async def test_a_release_that_finds_no_lease_moves_nothing(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, look_s=LONG_S, serving_linger_s=0) as api:
        lease = await api.acquire()
        with chat.write() as tx:
            tx.execute(delete(leases))
        before = slot_now(chat).last_transition_id
        api.release(lease)
        await until(lambda: not api.watches())
        assert slot_now(chat).last_transition_id == before, "workers see to that slot"


async def test_who_was_called_dead_and_lives_takes_a_lease_again_for_what_runs(
    chat: Database, settings: Settings
) -> None:
    """Serving if, and only if, a living process holds a lease: also for a stream of an hour."""
    async with Api(chat, settings, serving_linger_s=0) as api:
        first, second = await api.acquire_many(2)
        with chat.write() as tx:
            tx.execute(delete(leases))
            move(tx, slot_now(chat), SlotState.READY, Cause.LEASES_CLEARED, WORKER)
        await until(lambda: the_leases(chat) == {"api-1": 2})
        assert slot_now(chat).state is SlotState.SERVING
        assert first.is_good
        api.release(first, second)
        await until(lambda: slot_now(chat).state is SlotState.READY)
    assert history_since_ready(chat) == [
        "ready>serving request_started",
        "serving>ready leases_cleared",
        "ready>serving request_started",
        "serving>ready requests_done",
    ]


async def test_who_was_called_dead_while_lingering_has_nothing_to_give_back(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=LONG_S) as api:
        api.release(await api.acquire())
        with chat.write() as tx:
            tx.execute(delete(leases))
            move(tx, slot_now(chat), SlotState.READY, Cause.LEASES_CLEARED, WORKER)
        before = slot_now(chat)
        await until(lambda: not api.watches())
        assert slot_now(chat).last_transition_id == before.last_transition_id


async def test_a_slot_that_drains_lets_nobody_in_and_those_who_run_end(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=LONG_S, max_in_flight=2) as api:
        first, second = await api.acquire_many(2)
        waiting = asyncio.create_task(api.acquire())
        ask_unload(chat, drain_timeout_s=30.0)
        with pytest.raises(SlotDraining, match="slot chat lets its requests end") as refused:
            await waiting
        assert refused.value.retry_after_s is not None
        assert 10 < refused.value.retry_after_s <= 30
        with pytest.raises(SlotDraining):
            await api.acquire()
        assert (api.in_flight(), the_leases(chat)) == (2, {"api-1": 2})
        assert first.is_good
        assert not first.is_cut
        api.release(first, second)
        await until(lambda: slot_now(chat).state is SlotState.READY)
        with pytest.raises(SlotDraining):
            await api.acquire()
        assert claim_next(chat).job.kind == "unload"


async def test_who_lingers_leaves_at_once_when_the_slot_drains(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=LONG_S) as api:
        api.release(await api.acquire())
        ask_unload(chat, drain_timeout_s=30.0)
        await until(lambda: slot_now(chat).state is SlotState.READY)


async def test_a_slot_whose_unload_was_given_up_is_entered_again(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings) as api:
        lease = await api.acquire()
        ask_unload(chat, drain_timeout_s=0.0)
        await until(lambda: not lease.entry.is_open)
        with pytest.raises(SlotDraining):
            await api.acquire()
        fail_next(chat, DrainTimeout("slot chat still serves"))
        again = await api.acquire()
        assert again.held.generation == lease.held.generation
        assert api.in_flight() == 2
        api.release(lease, again)
