"""When a slot serves, seen from its rows: A5-A7, A10; what is written, and how often."""

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete, insert, select, update

from hal0.clock import monotonic_ms, utc_now
from hal0.db import Database
from hal0.dispatcher.places import COUNT_MS
from hal0.settings import Settings
from hal0.slots.overview import in_flight
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from hal0.tables import leases, slots, speeds, transitions
from tests.apis import Api, history_since_ready, the_leases, until
from tests.rows import slot_now

pytestmark = pytest.mark.anyio
LONG_S = 60.0
LINGER_S = 0.9 * COUNT_MS / 1000


def state(db: Database) -> SlotState:
    return slot_now(db).state


def used_at(db: Database) -> datetime:
    at = slot_now(db).last_used_at
    assert at is not None
    return at


def is_ready(db: Database) -> bool:
    return state(db) is SlotState.READY


async def test_a_slot_serves_before_its_first_request_goes_on_and_is_ready_after_the_last(
    chat: Database, settings: Settings
) -> None:
    """A5."""
    async with Api(chat, settings, serving_linger_s=0) as api:
        lease = await api.acquire()
        assert state(chat) is SlotState.SERVING
        assert the_leases(chat) == {"api-1": 1}
        assert (lease.held.slot, lease.held.generation) == ("chat", 1)
        assert (lease.held.engine_model, lease.held.engine.name) == ("tiny", "default")
        assert api.in_flight() == 1
        api.release(lease)
        await until(lambda: is_ready(chat))
        assert the_leases(chat) == {}
        assert api.in_flight() == 0
    assert history_since_ready(chat) == [
        "ready>serving request_started",
        "serving>ready requests_done",
    ]


async def test_requests_that_come_at_once_are_one_period_and_one_transaction(
    chat: Database, settings: Settings
) -> None:
    """A6."""
    async with Api(chat, settings, serving_linger_s=0) as api:
        held = await api.acquire_many(5)
        assert api.db.asked == 1
        assert api.in_flight() == 5
        assert the_leases(chat) == {"api-1": 5}
        api.release(*held[:4])
        assert state(chat) is SlotState.SERVING
        api.release(held[4])
        await until(lambda: is_ready(chat))
    assert len(history_since_ready(chat)) == 2


async def test_an_idle_slot_serves_and_is_ready_then(chat: Database, settings: Settings) -> None:
    """A7."""
    with chat.write() as tx:
        move(tx, slot_now(chat), SlotState.IDLE, Cause.DEMOTED, Act("scan"))
    async with Api(chat, settings, serving_linger_s=0) as api:
        api.release(await api.acquire())
        await until(lambda: is_ready(chat))
    assert history_since_ready(chat)[1:] == [
        "idle>serving request_started",
        "serving>ready requests_done",
    ]


async def test_the_edges_name_the_requests_that_made_them(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        first, second = await api.acquire_many(2)
        api.release(second, first)
        await until(lambda: is_ready(chat))
    with chat.read() as tx:
        rows = tx.execute(select(transitions).order_by(transitions.c.id)).all()[-2:]
    assert [(row.actor, row.request_id) for row in rows] == [("dispatcher", "request-1")] * 2
    assert first.request_id == "request-1"


async def test_who_enters_a_slot_that_serves_waits_for_nothing(
    chat: Database, settings: Settings
) -> None:
    """Not for the loop, so not for the thread that writes; nor for who holds the database."""
    async with Api(chat, settings) as api:
        first = await api.acquire()
        asked = api.db.asked
        with chat.write():
            for _ in range(100):
                entering = api.serving.acquire(first.held.slot_id, "a-request")
                with pytest.raises(StopIteration) as entered:
                    entering.send(None)
                api.release(entered.value.value)
        assert api.db.asked == asked
        api.release(first)


async def test_a_steady_stream_of_requests_is_one_period(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=LONG_S) as api:
        for number in range(20):
            api.release(await api.acquire(request_id=f"request-{number}"))
            await asyncio.sleep(0.005)
        assert history_since_ready(chat) == ["ready>serving request_started"]
    assert is_ready(chat), "who stops does not linger"


@pytest.mark.parametrize("linger_s", [0.3, 1.3])
async def test_a_period_ends_when_nobody_came_for_as_long_as_it_lingers(
    chat: Database, settings: Settings, linger_s: float
) -> None:
    async with Api(chat, settings, serving_linger_s=linger_s) as api:
        api.release(await api.acquire())
        ended_ms = monotonic_ms()
        await until(lambda: is_ready(chat))
        assert monotonic_ms() - ended_ms >= linger_s * 1000 - 10
        assert len(history_since_ready(chat)) == 2


async def test_without_lingering_a_period_ends_with_its_last_request(
    chat: Database, settings: Settings
) -> None:
    took_ms = []
    async with Api(chat, settings, serving_linger_s=0) as api:
        for _ in range(5):
            lease, began_ms = await api.acquire(), monotonic_ms()
            api.release(lease)
            await until(lambda: is_ready(chat))
            took_ms.append(monotonic_ms() - began_ms)
    assert min(took_ms) < COUNT_MS / 2, "the quickest of five, on a machine however busy"


async def test_without_lingering_each_request_may_be_a_period_and_none_is_half_of_one(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        for number in range(20):
            api.release(await api.acquire(request_id=f"request-{number}"))
            await asyncio.sleep(0.001 * (number % 5))
        await until(lambda: is_ready(chat))
        assert the_leases(chat) == {}
    rows = history_since_ready(chat)
    assert rows[::2] == ["ready>serving request_started"] * (len(rows) // 2)
    assert rows[1::2] == ["serving>ready requests_done"] * (len(rows) // 2)


async def test_a_count_is_written_when_it_changed_and_at_most_twice_a_second(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=LINGER_S) as api:
        lease, began_ms = await api.acquire(), monotonic_ms()
        while monotonic_ms() - began_ms < 2 * COUNT_MS or api.db.asked < 3:
            api.release(lease)  # that wakes the writer, for none runs and it lingers for a moment
            lease = await api.acquire()
            await asyncio.sleep(0.005)
        assert api.db.asked <= 2 + (monotonic_ms() - began_ms) // COUNT_MS
        held = [lease, *await api.acquire_many(2)]
        await until(lambda: the_leases(chat) == {"api-1": 3})
        asked = api.db.asked
        await asyncio.sleep(2.5 * COUNT_MS / 1000)
        assert api.db.asked == asked, "nothing changed"
        api.release(*held)


async def test_two_processes_add_up_and_the_last_one_ends_the_period(
    chat: Database, settings: Settings
) -> None:
    async with (
        Api(chat, settings, "api-1", serving_linger_s=0) as one,
        Api(chat, settings, "api-2", serving_linger_s=0) as two,
    ):
        mine, others = await asyncio.gather(one.acquire_many(2), two.acquire_many(3))
        with chat.read() as tx:
            assert in_flight(tx) == {mine[0].held.slot_id: 5}
        one.release(*mine)
        await until(lambda: the_leases(chat) == {"api-2": 3})
        assert state(chat) is SlotState.SERVING
        two.release(*others)
        await until(lambda: is_ready(chat))
    assert history_since_ready(chat) == [
        "ready>serving request_started",
        "serving>ready requests_done",
    ]


async def test_the_last_use_is_the_end_of_the_last_request(
    chat: Database, settings: Settings
) -> None:
    """A10."""
    async with Api(chat, settings, serving_linger_s=0.05) as api:
        first, second = await api.acquire_many(2)
        ends = [utc_now()]
        for lease in (first, second):
            api.release(lease)
            ends.append(utc_now())
            await until(lambda: used_at(chat) >= ends[-2])
            assert used_at(chat) <= ends[-1], "also while others run on"
        await until(lambda: is_ready(chat))
        assert ends[-2] <= used_at(chat) <= ends[-1]


async def test_a_later_use_through_another_process_is_not_taken_back(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        lease, asked = await api.acquire(), api.db.asked
        with chat.soft() as tx:
            api.release(lease)
            await until(lambda: api.db.asked > asked)
            later_at = utc_now()
            tx.execute(update(slots).values(last_used_at=later_at))
        await until(lambda: is_ready(chat))
    assert used_at(chat) == later_at


async def test_a_use_counts_also_when_the_clock_was_set_back(
    chat: Database, settings: Settings
) -> None:
    """Else nobody would see that the model is used, and it would be unloaded (C10)."""
    with chat.soft() as tx:
        tx.execute(update(slots).values(last_used_at=utc_now() + timedelta(hours=1)))
    async with Api(chat, settings, serving_linger_s=0) as api:
        api.release(await api.acquire())
        await until(lambda: is_ready(chat))
    assert used_at(chat) <= utc_now()


async def test_a_process_that_stops_gives_back_what_runs_too(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=LONG_S) as api:
        lease = await api.acquire()
        assert lease.is_good
    assert is_ready(chat)
    assert the_leases(chat) == {}
    api.release(lease)
    assert len(history_since_ready(chat)) == 2


async def test_a_place_is_given_back_once(chat: Database, settings: Settings) -> None:
    async with Api(chat, settings) as api:
        first, second = await api.acquire_many(2)
        api.release(first, first)
        assert api.in_flight() == 1
        api.release(second, second, first)
        assert api.in_flight() == 0


async def test_how_fast_a_slot_answered_is_written_with_the_counts(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        for first_byte_ms in (20.0, 40.0):
            lease = await api.acquire()
            api.speeds.note(lease.held.slot_id, first_byte_ms, 50.0)
            api.release(lease)
            await until(lambda: is_ready(chat))
    with chat.read() as tx:
        (row,) = tx.execute(select(speeds)).all()
    assert (row.requests, row.first_byte_ms, row.tokens_per_s) == (2, 30.0, 50.0)


async def test_a_lease_on_an_older_generation_keeps_no_slot_serving(
    chat: Database, settings: Settings
) -> None:
    """lease_generation: what was decided for one generation never touches another."""
    old = {"slot_id": slot_now(chat).id, "generation": 0, "owner_id": "api-2", "in_flight": 7}
    with chat.soft() as tx:
        tx.execute(insert(leases).values(**old, at=utc_now()))
    async with Api(chat, settings, serving_linger_s=0) as api:
        lease = await api.acquire()
        with chat.read() as tx:
            assert in_flight(tx) == {lease.held.slot_id: 1}
        api.release(lease)
        await until(lambda: is_ready(chat))
    with chat.soft() as tx:
        assert tx.execute(delete(leases)).rowcount == 1
