"""Serving while the database cannot be written: who enters is told, who leaves is not forgotten."""

import asyncio

import pytest
from sqlalchemy.exc import NoResultFound

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.places import COUNT_MS, Lease
from hal0.errors import DatabaseFull, DatabaseLocked
from hal0.settings import Settings
from hal0.states import SlotState
from tests.apis import Api, history_since_ready, the_leases, until
from tests.rows import slot_now

pytestmark = pytest.mark.anyio
FULL = DatabaseFull("no room for hal0.db: make room on its disk", retry_after_s=5)


def is_ready(db: Database) -> bool:
    return slot_now(db).state is SlotState.READY


async def test_who_enters_while_another_holds_the_database_is_told_and_not_counted(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, busy_timeout_s=0.1) as api:
        with chat.write():
            asked = await asyncio.gather(*(api.acquire() for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in asked] == [DatabaseLocked] * 3
        assert api.in_flight() == 0
        assert is_ready(chat)
        api.release(await api.acquire())


async def test_who_enters_while_the_disk_is_full_is_told_and_not_counted(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings) as api:
        api.db.refusal = FULL
        with pytest.raises(DatabaseFull, match="make room") as refused:
            await api.acquire()
        assert refused.value.retry_after_s == 5
        assert (api.in_flight(), the_leases(chat)) == (0, {})
        api.db.refusal = None
        api.release(await api.acquire())


async def test_the_loop_goes_on_while_a_lease_waits_for_the_database(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, busy_timeout_s=0.1) as api:
        with chat.write():
            entering = asyncio.create_task(api.acquire())
            await until(lambda: api.db.asked == 1)
            turns = 0
            while not entering.done():
                await asyncio.sleep(0)
                turns += 1
            assert turns > 10
        assert isinstance(entering.exception(), DatabaseLocked)


async def test_a_period_whose_end_cannot_be_written_ends_when_it_can(
    chat: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        lease = await api.acquire()
        api.db.refusal, asked, began_ms = FULL, api.db.asked, monotonic_ms()
        api.release(lease)
        await until(lambda: api.db.asked >= asked + 3)
        assert monotonic_ms() - began_ms >= 2 * COUNT_MS - 10, "it is not tried all the time"
        assert slot_now(chat).state is SlotState.SERVING
        api.db.refusal = None
        await until(lambda: is_ready(chat))
        assert the_leases(chat) == {}
    assert len(history_since_ready(chat)) == 2
    assert caplog.text.count("leases wait for the database") == 1


async def test_who_comes_while_the_end_cannot_be_written_goes_on_with_the_period(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        lease, asked = await api.acquire(), api.db.asked
        api.db.refusal = FULL
        api.release(lease)
        await until(lambda: api.db.asked > asked)
        with pytest.raises(DatabaseFull):
            await api.acquire()
        api.db.refusal = None
        again = await api.acquire()
        assert history_since_ready(chat) == ["ready>serving request_started"]
        api.release(again)
        await until(lambda: is_ready(chat))
    assert len(history_since_ready(chat)) == 2


async def test_a_count_that_cannot_be_written_is_written_when_it_can(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings) as api:
        held = [await api.acquire()]
        api.db.refusal, asked = FULL, api.db.asked
        held.append(await api.acquire())
        await until(lambda: api.db.asked > asked)
        api.db.refusal = None
        await until(lambda: the_leases(chat) == {"api-1": 2})
        api.release(*held)


async def test_a_process_that_is_no_owner_yet_holds_nothing(
    chat: Database, settings: Settings
) -> None:
    """Nobody would know whose lease it is, nor whether it lives."""
    async with Api(chat, settings) as api:
        api.is_owner = False
        with pytest.raises(DatabaseLocked, match="has not been able to write its own row"):
            await api.acquire()
        assert api.db.asked == 0
        api.is_owner = True
        api.release(await api.acquire())


async def test_a_fault_that_nobody_foresaw_ends_no_writer(
    chat: Database, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Api(chat, settings, serving_linger_s=0) as api:
        never, lease = await asyncio.gather(
            api.serving.acquire(4711, "a-request"), api.acquire(), return_exceptions=True
        )
        assert isinstance(never, NoResultFound)
        assert "leases are not written" in caplog.text
        assert isinstance(lease, Lease), "written in the same moment"
        api.release(lease)
        await until(lambda: is_ready(chat))
