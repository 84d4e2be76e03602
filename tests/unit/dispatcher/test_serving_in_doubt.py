"""How old what is known may be by which a request enters from memory: the beat, and the slot."""

import pytest

from hal0.clock import monotonic_ms
from hal0.db import Database
from hal0.dispatcher.edges import NotDispatchable
from hal0.dispatcher.serving import KNOWN_MS
from hal0.jobs.context import CUT_S
from hal0.settings import Settings
from hal0.slots.transitions import Act, move
from hal0.states import Cause, SlotState
from tests.apis import Api, history_since_ready, the_leases, until
from tests.rows import slot_now

pytestmark = pytest.mark.anyio
LONG_S = 60.0


def unload_by_force(db: Database) -> None:
    with db.write() as tx:
        move(tx, slot_now(db), SlotState.UNLOADING, Cause.FORCED, Act("worker"))


async def test_who_has_beaten_ten_seconds_ago_asks_nobody(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings) as api:
        first = await api.acquire()
        api.last_beat_ms = monotonic_ms() - 10_000
        entering = api.serving.acquire(first.held.slot_id, "a-request")
        with pytest.raises(StopIteration) as entered:
            entering.send(None)
        api.release(first, entered.value.value)


async def test_who_has_not_beaten_for_long_asks_the_rows(
    chat: Database, settings: Settings
) -> None:
    """Whoever stood still may have been called dead, and its model unloaded."""
    async with Api(chat, settings) as api:
        first = await api.acquire()
        api.last_beat_ms = monotonic_ms() - 15_000
        second = await api.acquire()
        assert api.db.asked == 2
        assert history_since_ready(chat) == ["ready>serving request_started"]
        assert (api.in_flight(), the_leases(chat)) == (2, {"api-1": 2})
        unload_by_force(chat)
        with pytest.raises(NotDispatchable):
            await api.acquire()
        assert not second.is_good
        api.release(first, second)


async def test_who_has_not_seen_the_slot_for_a_second_asks_the_rows(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, look_s=LONG_S) as api:
        first = await api.acquire()
        await until(lambda: 0 < api.watch.looked_ms < monotonic_ms() - KNOWN_MS)
        unload_by_force(chat)
        with pytest.raises(NotDispatchable):
            await api.acquire()
        api.release(first)


def test_a_forced_unload_is_sent_when_nobody_can_know_the_slot_by_memory_any_more() -> None:
    assert KNOWN_MS <= CUT_S * 1000
