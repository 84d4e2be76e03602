"""Who may go on with a slot, who waits and in which order, and who goes away while waiting."""

import asyncio
import time
from functools import partial

import pytest
from sqlalchemy import update

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.places import Lease
from hal0.dispatcher.serving import ALIVE_MS
from hal0.errors import SlotFull
from hal0.settings import Settings
from hal0.tables import slots
from tests.apis import LIMIT_S, Api, history_since_ready, the_leases, until

pytestmark = pytest.mark.anyio


def asking(api: Api, *names: str) -> list[asyncio.Task[Lease]]:
    return [asyncio.create_task(api.acquire(request_id=name)) for name in names]


async def queued(*tasks: "asyncio.Task[Lease]") -> None:
    """Let requests come to where they wait."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def ended(db: Database, api: Api) -> None:
    """Nothing runs, nothing is held, and each period has both its edges."""
    await until(lambda: len(history_since_ready(db)) % 2 == 0 and not the_leases(db))
    assert api.in_flight() == 0
    edges = [row.split()[1] for row in history_since_ready(db)]
    assert edges == ["request_started", "requests_done"] * (len(edges) // 2)


async def test_who_finds_no_place_waits_for_one_in_order(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, max_in_flight=2, serving_linger_s=0) as api:
        first, second = await api.acquire_many(2)
        waiting = asking(api, "third", "fourth", "fifth")
        await queued(*waiting)
        api.release(first)
        third = await waiting[0]
        assert api.in_flight() == 2
        api.release(second, third)
        fourth, fifth = await waiting[1], await waiting[2]
        assert (fourth.request_id, fifth.request_id) == ("fourth", "fifth")
        assert history_since_ready(chat) == ["ready>serving request_started"]
        api.release(fourth, fifth)
        await ended(chat, api)


async def test_who_comes_later_does_not_overtake(chat: Database, settings: Settings) -> None:
    async with Api(chat, settings, max_in_flight=1) as api:
        first = await api.acquire()
        waiting = asking(api, "second")
        await queued(*waiting)
        api.release(first)
        late = asking(api, "late")
        second = await waiting[0]
        await queued(*late)
        api.release(second)
        api.release(await late[0])


async def test_who_finds_no_place_to_wait_is_told_to_come_again(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, max_in_flight=1, max_waiting=1) as api:
        first = await api.acquire()
        waiting = asking(api, "second")
        await queued(*waiting)
        with pytest.raises(SlotFull, match="slot chat answers 1 requests") as refused:
            await api.acquire()
        assert refused.value.retry_after_s == 1
        assert refused.value.evidence == {"slot": "chat", "max_in_flight": 1, "max_waiting": 1}
        api.release(first)
        api.release(await waiting[0])


async def test_who_gets_no_place_in_time_is_told_to_come_again_and_others_wait_on(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, max_in_flight=1, wake_timeout_s=0.2) as api:
        first = await api.acquire()
        (early,) = asking(api, "early")
        await queued(early)
        with pytest.raises(SlotFull, match=r"at once and none ended in 0\.2 s") as refused:
            await asyncio.wait_for(early, LIMIT_S)
        assert refused.value.retry_after_s == 1
        (late,) = asking(api, "late")
        await queued(late)
        api.release(first)
        second = await late
        assert second.request_id == "late"
        api.release(second)


async def test_a_place_that_comes_free_when_the_time_of_who_waits_is_over_is_not_lost(
    chat: Database, settings: Settings
) -> None:
    """Both in one turn of the loop: the place first, the limit first."""
    async with Api(chat, settings, max_in_flight=1, wake_timeout_s=0.05, serving_linger_s=0) as api:
        for is_first in (True, False):
            held = await api.acquire()
            (waiting,) = asking(api, "waiting")
            await queued(waiting)
            if not is_first:
                asyncio.get_running_loop().call_later(0.05, api.release, held)
            time.sleep(0.1)  # noqa: ASYNC251 - the loop stands still, so that its limit is over
            if is_first:
                api.release(held)
            await asyncio.wait([waiting])
            if waiting.exception() is None:
                api.release(waiting.result())
            assert (waiting.exception() is None) == is_first
            await ended(chat, api)


async def test_whoever_may_not_wait_enters_all_the_same_where_a_place_is_free(
    chat: Database, settings: Settings
) -> None:
    """What the first one waits for is its lease, or its renewal, however long that takes."""
    async with Api(chat, settings, max_in_flight=1, wake_timeout_s=0) as api:
        for number in (1, 2):
            with chat.soft():
                (first,) = asking(api, "first")
                await until(lambda asked=number: api.db.asked >= asked)  # type: ignore[misc]
                await asyncio.sleep(0.05)
                assert not first.done()
            lease = await first
            with pytest.raises(SlotFull):
                await api.acquire()
            api.last_beat_ms = monotonic_ms() - 2 * ALIVE_MS
            api.release(lease)


async def test_of_a_crowd_that_comes_at_once_the_first_enter_and_the_last_are_refused(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, max_in_flight=2, max_waiting=1, serving_linger_s=0) as api:
        crowd = asking(api, *"abcde")
        await until(lambda: sum(task.done() for task in crowd) == 4)
        assert [type(task.exception()) for task in crowd[3:]] == [SlotFull, SlotFull]
        assert the_leases(chat) == {"api-1": 2}
        api.release(await crowd[0], await crowd[1])
        api.release(await crowd[2])
        await ended(chat, api)


async def test_a_slot_has_limits_of_its_own(chat: Database, settings: Settings) -> None:
    with chat.write() as tx:
        tx.execute(update(slots).values(max_in_flight=3, max_waiting=0))
    async with Api(chat, settings, max_in_flight=1, max_waiting=9) as api:
        held = await api.acquire_many(3)
        with pytest.raises(SlotFull):
            await api.acquire()
        api.release(*held)


async def test_limits_that_an_operator_changes_hold_at_once(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, max_in_flight=1) as api:
        first = await api.acquire()
        waiting = asking(api, "second")
        await queued(*waiting)
        with chat.write() as tx:
            tx.execute(update(slots).values(max_in_flight=2))
        api.release(await waiting[0], first)


async def test_who_goes_away_while_waiting_leaves_the_line(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, max_in_flight=1, max_waiting=2, serving_linger_s=0) as api:
        first = await api.acquire()
        gone, stays = waiting = asking(api, "gone", "stays")
        await queued(*waiting)
        gone.cancel()
        await asyncio.wait([gone])
        another = asking(api, "another")
        await queued(stays, *another)
        api.release(first)
        api.release(await stays)
        api.release(await another[0])
        await ended(chat, api)


async def test_who_goes_away_with_a_place_just_given_passes_it_on(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, max_in_flight=1, serving_linger_s=0) as api:
        first = await api.acquire()
        gone, stays = waiting = asking(api, "gone", "stays")
        await queued(*waiting)
        api.release(first)
        gone.cancel()
        assert api.in_flight() == 1, "the place is given, and its task has not run yet"
        second = await stays
        assert gone.cancelled()
        api.release(second)
        await ended(chat, api)


async def test_who_goes_away_at_any_moment_of_entering_leaves_nothing_behind(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        for pauses in range(25):
            (task,) = asking(api, "a-request")
            for _ in range(pauses):
                await asyncio.sleep(0.0002)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                api.release(task.result())
            await ended(chat, api)
        api.release(await api.acquire())
    await ended(chat, api)


async def test_who_goes_away_while_the_lease_is_written_leaves_nothing_behind(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        with chat.soft():
            tasks = asking(api, "first", "second")
            await until(lambda: api.db.asked == 1)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await until(lambda: len(history_since_ready(chat)) == 2)
        await ended(chat, api)


async def test_a_request_is_told_once_that_it_is_cut_also_when_it_asks_late(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings) as api:
        told: list[str] = []
        first, second, gone = await api.acquire_many(3)
        first.on_cut(lambda: told.append("first"))
        gone.on_cut(lambda: told.append("gone"))
        api.release(gone)
        first.entry.cut()
        assert told == ["first"]
        second.on_cut(lambda: told.append("second"))
        assert told == ["first", "second"]
        assert second.is_cut
        api.release(first, second)


async def test_one_that_cannot_be_cut_keeps_no_other_from_it(
    chat: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Api(chat, settings) as api:
        told: list[str] = []
        first, second = await api.acquire_many(2)
        first.on_cut(partial(told.remove, "nothing"))
        second.on_cut(lambda: told.append("second"))
        first.entry.cut()
        assert told == ["second"]
        assert "a request of slot chat was not cut" in caplog.text
        api.release(first, second)
