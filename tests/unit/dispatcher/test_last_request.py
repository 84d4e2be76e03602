"""Who waits for the last request of a slot hears of its end at once: the workers are woken."""

import asyncio
from collections.abc import Iterator

import pytest

from hal0.db import Database
from hal0.jobs.bell import Bell
from hal0.settings import Settings
from hal0.states import JobKind
from tests.apis import Api, until
from tests.ledger import try_claim
from tests.raw_engine import Got, Line, says
from tests.rows import ask_unload, claim_next, slot_now
from tests.unit.dispatcher.rig import LIMIT_S, Rig

pytestmark = pytest.mark.anyio


@pytest.fixture
def bell(settings: Settings) -> Iterator[Bell]:
    """A worker's bell, that nobody has rung."""
    hung = Bell(settings.run, "a-worker")
    yield hung
    hung.close()


async def test_the_unload_of_a_drained_slot_is_rung_for_when_its_last_request_has_ended(
    at: Rig, bell: Bell
) -> None:
    may_end = asyncio.Event()

    async def slowly(got: Got, line: Line) -> None:
        await may_end.wait()
        await says({"choices": []})(got, line)

    at.engine.answer = slowly
    asked = at.begin(at.client())
    await at.until(lambda: at.engine.got)
    (unload,) = ask_unload(at.db, drain_timeout_s=600.0).job_ids
    assert try_claim(at.db) is None
    assert not bell.wait(0.01)
    may_end.set()
    await asked
    assert await asyncio.to_thread(bell.wait, LIMIT_S)
    held = claim_next(at.db)
    assert (held.job.id, held.job.kind) == (unload, JobKind.UNLOAD)


async def test_nobody_is_woken_by_a_request_for_whose_end_nobody_waits(at: Rig, bell: Bell) -> None:
    await at.ask(at.client())
    await at.is_released()
    assert not bell.wait(0.01)


async def test_the_last_of_several_processes_wakes_the_workers_and_no_other(
    chat: Database, settings: Settings
) -> None:
    async with (
        Api(chat, settings, "api-1", serving_linger_s=0) as one,
        Api(chat, settings, "api-2", serving_linger_s=0) as two,
    ):
        mine, others = await one.acquire(), await two.acquire()
        ask_unload(chat, drain_timeout_s=600.0)
        one.release(mine)
        await until(lambda: not one.watches())
        assert (one.rings, slot_now(chat).state) == (0, "serving")
        two.release(others)
        await until(lambda: two.rings)
        assert (one.rings, two.rings) == (0, 1)
        assert claim_next(chat).job.kind is JobKind.UNLOAD


async def test_a_process_that_stops_wakes_the_workers_for_what_it_gives_back(
    chat: Database, settings: Settings
) -> None:
    async with Api(chat, settings, serving_linger_s=60.0) as api:
        await api.acquire()
        ask_unload(chat, drain_timeout_s=600.0)
    assert api.rings == 1
